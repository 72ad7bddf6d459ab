"""The round trip of a competition: its data, our submissions and their scores, through the official client."""

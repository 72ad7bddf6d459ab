"""Work with a Kaggle competition through the official client: download its data, submit, and read the scores."""

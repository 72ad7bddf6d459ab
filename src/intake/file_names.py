"""The names of files: which are litter, which are pictures, which number a picture has. One rule for all commands."""

import re

# What file managers, notebooks, version control and network drives leave beside people's data, in lower case. Names
# that begin with a dot are litter, too.
LITTER_FOLDERS = {"__macosx", "@eadir", "#recycle", "$recycle.bin", "system volume information", "lost+found"}
LITTER_FILES = {"thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r"}
WINDOWS_STREAM = ":zone.identifier"  # it marks a file that was downloaded, where a Windows disk is copied to Linux
SUFFIXES = r"\.(?i:png|jpe?g)"  # suffixes of picture files, as a regular expression
PICTURE = re.compile(rf".*{SUFFIXES}", re.DOTALL)
NUMBERED = re.compile(rf"(?:[^\W\d][^\d]*)?([0-9]{{1,9}}){SUFFIXES}", re.DOTALL)  # 7.png, 007.PNG, frame_7.jpg


def is_litter(name: str) -> bool:
    """Returns whether a file, named by its path with slashes, is none of the person's own."""
    *folders, file = name.lower().split("/")
    hidden = any(part.startswith(".") and part not in (".", "..") for part in (*folders, file))
    return hidden or file in LITTER_FILES or file.endswith(WINDOWS_STREAM) or not LITTER_FOLDERS.isdisjoint(folders)


def picture_number(file: str) -> int | None:
    """Returns the number in a picture's name, such as 7 for "frame_0007.png"; None if the name has another form."""
    match = NUMBERED.fullmatch(file)
    return int(match[1]) if match else None

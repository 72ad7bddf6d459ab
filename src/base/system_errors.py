"""What the system refuses (a full disk, no memory, no permission), in one line that says what helps."""

import errno
import os

AGAIN = "and run the same command again"
FREE_SPACE = f"free some space {AGAIN}"
NO_MEMORY = (
    "memory ran out; close other programs, or lower training.batch_size, training.window or the model's width; "
    "`make cost` shows what a run needs"
)
COMPILER = (
    "training.compile needs a C and C++ compiler and Python's headers, and they are missing or do not work; install "
    "them (Debian and Ubuntu: apt-get install g++ python3-dev), or set training.compile=false"
)
WORDS = {  # errno -> what has happened, and what helps
    errno.ENOSPC: f"the disk is full; {FREE_SPACE}",
    errno.EDQUOT: f"the disk quota is used up; {FREE_SPACE}",
    errno.EFBIG: f"the file is larger than the system allows; raise `ulimit -f` {AGAIN}",
    errno.EROFS: "the file system is read-only; use a folder that can be written",
    errno.EACCES: "permission denied; use a folder that this user can read and write",
    errno.EPERM: "not permitted; use a folder that this user can read and write",
    errno.EMFILE: f"this process has too many open files; raise `ulimit -n` {AGAIN}",
    errno.ENFILE: f"the system has too many open files; close other programs {AGAIN}",
    errno.ENAMETOOLONG: "the name is too long for this file system; use a shorter name or folder",
    errno.EILSEQ: "the file system does not allow this name; use letters, digits, '.', '_' and '-'",
    errno.EINVAL: "the file system does not allow this; use a plain folder of a local disk",
    errno.ENOTDIR: "one of its folders is a file; move that file away, or use another folder",
    errno.EISDIR: "it is a folder and must be a file; move the folder away, or use another name",
    errno.EEXIST: "it exists already; move it away, or use another name",
    errno.ENOTEMPTY: "the folder is not empty, because another program writes into it; stop that program",
    errno.ENOENT: "it does not exist and cannot be made there; restore it, or use another folder",
    errno.ELOOP: "its links form a circle; use a plain folder",
    errno.EIO: "the disk or the network cannot read or write it; check the hardware and use another disk",
    errno.ESTALE: f"the network folder was lost; mount it again {AGAIN}",
    errno.ETXTBSY: "another program uses the file; stop that program",
    errno.EBUSY: "another program uses it; stop that program",
    errno.ENOMEM: NO_MEMORY,
    errno.EAGAIN: f"the system allows no more processes or threads; raise `ulimit -u` or close other programs {AGAIN}",
    errno.ENOSYS: "the system lacks a function that is needed; is /dev/shm missing? Use another system",
    errno.ENOLCK: "this file system has no locks; use a folder of a local disk, or mount it with flock (Lustre)",
    errno.EXDEV: "it lies on another disk; use a folder of one disk",
}
# What torch and Python say in errors that have no type of their own.
SIGNS = {
    "not enough memory": NO_MEMORY,
    "out of memory": NO_MEMORY,
    "allocate memory": NO_MEMORY,
    "unable to allocate": NO_MEMORY,
    "could not create a primitive": NO_MEMORY,  # of oneDNN
    "failed to map segment": NO_MEMORY,  # of the loader, for a library
    "no working c++ compiler": COMPILER,
    "failed to find c compiler": COMPILER,  # of Triton, for a GPU
    "c++ compile error": COMPILER,
    "can't start new thread": WORDS[errno.EAGAIN],
    "no space left on device": WORDS[errno.ENOSPC],
    "resource temporarily unavailable": WORDS[errno.EAGAIN],
}


def explained(error: BaseException) -> str | None:
    """Returns one line for an error of the system; None for any other error, because that is a bug of this project."""
    if isinstance(error, MemoryError):
        return NO_MEMORY
    if isinstance(error, OSError):
        if _is_of_semaphore(error):
            return f"/dev/shm, which processes share, cannot be used: {error.strerror}; in Docker: --shm-size=64m"
        words = WORDS.get(error.errno or 0)
        where = error.filename2 or error.filename
        name = os.fsdecode(where) if isinstance(where, (str, bytes, os.PathLike)) else "a file"
        return words and (words if error.errno in (errno.ENOMEM, errno.EAGAIN) else f"{name}: {words}")
    if isinstance(error, (RuntimeError, ImportError)):
        text = str(error).lower()
        return next((words for sign, words in SIGNS.items() if sign in text), None)
    return None


def _is_of_semaphore(error: OSError) -> bool:
    """Returns whether a semaphore could not be made. Such an error names no file."""
    place = error.__traceback__
    while place and place.tb_next:
        place = place.tb_next
    return place is not None and place.tb_frame.f_code.co_filename.endswith("multiprocessing/synchronize.py")

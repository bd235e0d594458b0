"""JSON text to records: the only module of the specification that parses text."""

from __future__ import annotations

from corten.errors import InvalidInput, NotFound, errno_words
from corten.json_text import loads
from corten.records import Record
from corten.runtime.spec.container import Spec
from corten.runtime.spec.decoding import decode_as

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, TypeVar

    R = TypeVar("R", bound=Record)

LARGEST = 64 << 20  # bytes; no real configuration comes near, and /dev/zero must not fill the memory


def parse(text: bytes, name: str) -> Any:
    """JSON text as data. `name` begins the error: `config.json: line 3 column 7: expecting value`."""
    try:
        return loads(text.decode())
    except UnicodeDecodeError as error:
        line = text.count(b"\n", 0, error.start) + 1
        raise InvalidInput(f"{name}: line {line}: byte {error.start} is not UTF-8") from None
    except RecursionError:
        raise InvalidInput(f"{name}: nested too deeply") from None
    except ValueError as error:
        line = getattr(error, "lineno", 0)
        if line:  # json.JSONDecodeError
            said, column = getattr(error, "msg", ""), getattr(error, "colno", 0)
            raise InvalidInput(f"{name}: line {line} column {column}: {said[:1].lower()}{said[1:]}") from None
        # int() refuses numbers of more than 4300 digits
        raise InvalidInput(f"{name}: {str(error).partition(';')[0]}") from None


def load_as(kind: type[R], path: str) -> R:
    """A file that holds one record (`Process`: process.json of exec). Errors: `NotFound`, `InvalidInput`."""
    name = path.rpartition("/")[2] or path
    try:
        with open(path, "rb") as file:
            text = file.read(LARGEST + 1)
    except FileNotFoundError:
        raise NotFound(f"{path}: no such file") from None
    except OSError as error:
        raise InvalidInput(f"{path}: {errno_words(error.errno or 0)}") from None
    if len(text) > LARGEST:
        raise InvalidInput(f"{path}: larger than {LARGEST >> 20} MiB")
    return decode_as(kind, parse(text, name))


def load(path: str) -> Spec:
    """A `config.json`, decoded but not validated. Errors: `NotFound`, `InvalidInput`."""
    return load_as(Spec, path)

"""Formats that are not read, recognised by a file's first bytes, each with what to do instead."""

import os
import re

_CSV = "as CSV (UTF-8)"
_EXCEL = f"an Excel file or another zip archive; export the sheet {_CSV}, or unpack the archive"
# Extension of a zip archive -> the message.
_ZIPPED = {
    ".docx": "a Word document; save it as plain text (UTF-8)",
    ".odt": "an OpenDocument text; save it as plain text (UTF-8)",
    ".ods": f"an OpenDocument sheet; save it {_CSV}",
    ".xlsx": f"an Excel file; export the sheet {_CSV}",
    ".npz": "a NumPy archive; write its texts as Parquet or CSV",
    ".zip": "a zip archive; unpack it (unzip FILE) and name the files in it",
}
# Extension of an OLE file, as Office wrote until 2003, and writes today if a file has a password -> the message.
_OLE_MAGIC = b"\xd0\xcf\x11\xe0"
_OLE = {
    ".xls": f"an old Excel file; export the sheet {_CSV}",
    ".doc": "an old Word document; save it as plain text (UTF-8)",
    ".xlsx": f"an Excel file with a password; export the sheet {_CSV}",
    ".docx": "a Word document with a password; save it as plain text (UTF-8)",
}
_OLD_OFFICE = f"an old Excel or Word file; export the sheet {_CSV}, or save it as plain text (UTF-8)"
_TAR = "a tar archive; unpack it (tar -xf FILE) and name the files in it"
# First bytes -> the message.
_MAGIC = {
    b"PK\x05\x06": "an empty zip archive; create it again",
    b"7z\xbc\xaf\x27\x1c": "a 7-Zip archive; unpack it (7z x FILE) and name the files in it",
    b"Rar!\x1a\x07": "a RAR archive; unpack it (unrar x FILE) and name the files in it",
    b"%PDF": "a PDF; extract its text, for example with pdftotext",
    b"{\\rtf": "a rich text document; save it as plain text (UTF-8)",
    b"PAR1": "a Parquet file; name it .parquet, or use --set data.format=parquet",
    b"ARROW1": "an Arrow file; write it as Parquet",
    b"FEA1": "a Feather file; write it as Parquet",
    b"SQLite format 3": f"an SQLite database; export the table {_CSV}",
    b"\x80\x04\x95": "a pickle; write its texts as Parquet or CSV",
    b"\x93NUMPY": "a NumPy array; write its texts as Parquet or CSV",
}
_COMPRESSED = {
    b"\x1f\x8b\x08": "compressed with gzip; let its name end in .gz, or unpack it (gunzip)",
    b"BZh": "compressed with bzip2; let its name end in .bz2, or unpack it (bunzip2)",
    b"\x28\xb5\x2f\xfd": "compressed with Zstandard; let its name end in .zst, or unpack it (unzstd)",
    b"\xfd7zXZ": "compressed with xz, which is not read; unpack it (unxz)",
    b"\x5d\x00\x00": "compressed with LZMA, which is not read; unpack it (unlzma)",
    b"\x1f\x9d": "compressed with compress, which is not read; unpack it (uncompress)",
    b"\x04\x22\x4d\x18": "compressed with LZ4, which is not read; unpack it (unlz4)",
}
_MARKUP = re.compile(
    rb"\s*<(!doctype html|html|\?xml|!doctype tmx|tmx|xliff|martif|tbx|srcset|refset|tstset)\b", re.IGNORECASE
)
_TRANSLATIONS = (".xlf", ".xliff", ".tbx", ".sgm")
_COMPRESSED_TARS = (".tgz", ".tbz", ".tbz2", ".txz", ".tzst", ".tar.xz", ".tar.lzma", ".tar.lz4", ".tar.z")
_TAR_MAGIC, _TAR_OFFSET = b"ustar", 257
_BZIP_BLOCK = b"1AY&SY"  # after the level; text may begin with BZh


def foreign_format(beginning: bytes, path: str, data_format: str) -> str:
    """Returns the format of a file that is not text, and what to do; empty if it may be text.

    Args:
        beginning: the first bytes of the file, after the decompression that its name asks for.
        path: its extension tells zip archives, Office files and compressed tar archives apart.
        data_format: the format in which it would be read. Plain text may be markup, unless its name says that it is
            translations.
    """
    name = path.lower()
    if beginning.startswith(b"PK\x03\x04"):
        return _ZIPPED.get(os.path.splitext(name)[1], _EXCEL)
    if beginning.startswith(_OLE_MAGIC):
        return _OLE.get(os.path.splitext(name)[1], _OLD_OFFICE)
    for magic, hint in _MAGIC.items():
        if beginning.startswith(magic):
            return hint
    for magic, hint in _COMPRESSED.items():
        if beginning.startswith(magic) and (magic != b"BZh" or beginning[4:10] == _BZIP_BLOCK):
            return _TAR if name.endswith(_COMPRESSED_TARS) else hint
    if beginning[_TAR_OFFSET:].startswith(_TAR_MAGIC):
        return _TAR
    markup = _MARKUP.match(_ascii(beginning))
    if markup and (data_format != "text" or name.endswith(_TRANSLATIONS)):
        return _markup_hint(markup[1].lower(), _ascii(beginning))
    return ""


def _ascii(beginning: bytes) -> bytes:
    """Returns the ASCII characters, without a byte order mark and the zero bytes of UTF-16, in which TMX often is."""
    return beginning.lstrip(b"\xef\xbb\xbf\xff\xfe").replace(b"\0", b"")


def _markup_hint(tag: bytes, beginning: bytes) -> str:
    if tag.endswith(b"html"):
        return "a web page, perhaps an error page of the download; download the file again, or extract its text"
    if b"<tmx" in beginning.lower():
        return "TMX; let its name end in .tmx, or use --set data.format=tmx"
    return "XML, which is not read; convert it to TSV, one row per line"

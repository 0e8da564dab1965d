"""What is no scan gets 4xx with one clear line, whatever it tries; the service stays healthy (the fixture looks)."""

import gzip
import io
import stat
import struct
import tarfile
import zipfile
import zlib

import nibabel as nib
import numpy as np
import pydicom
import pytest
import requests
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom.data import get_testdata_file

from kits_ml.serving import problems
from tests.serving.conftest import nifti, scan, zipped
from tests.serving.test_segment import series


def _header(shape=(24, 20, 4), dtype=np.int16, cls=nib.Nifti1Header, **fields) -> bytes:
    """A header and the extension flag, 352 bytes (NIfTI-2: 544)."""
    header = cls()
    header.set_data_dtype(dtype)
    header["dim"] = [len(shape), *shape, *[1] * (7 - len(shape))]
    header["pixdim"][1:4] = (0.7, 0.8, 3.0)
    header["vox_offset"] = header.template_dtype.itemsize + 4
    header["magic"] = b"n+1" if cls is nib.Nifti1Header else header["magic"]
    header.set_sform(np.diag([0.7, 0.8, 3.0, 1]), 1)
    for name, value in fields.items():
        header[name] = value
    return header.binaryblock + b"\0\0\0\0"


def _whole(shape=(24, 20, 4), dtype=np.int16, **fields) -> bytes:
    return _header(shape, dtype, **fields) + bytes(int(np.prod(shape)) * np.dtype(dtype).itemsize)


def _deflated(before: bytes, num_megabytes: int) -> bytes:
    """`before`, then zeros, packed to a thousandth: after a full flush, a block stands for itself wherever it is."""
    packer = zlib.compressobj(6, wbits=-15)
    begun = packer.compress(before) + packer.flush(zlib.Z_FULL_FLUSH)
    block = packer.compress(bytes(1_000_000)) + packer.flush(zlib.Z_FULL_FLUSH)
    return begun + block * num_megabytes + packer.flush()


def _bomb(num_megabytes: int, before: bytes = b"") -> bytes:
    """As gzip; what is at its end is wrong, but who gets there has lost."""
    return gzip.compress(b"")[:10] + _deflated(before, num_megabytes) + bytes(8)


def _tar() -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:gz") as archive:
        archive.addfile(tarfile.TarInfo("scan.nii"), io.BytesIO())
    return stream.getvalue()


def _one_slice() -> bytes:
    with open(get_testdata_file("CT_small.dcm", download=False), "rb") as stream:  # noqa: PTH123
        return stream.read()


def _not_a_number() -> bytes:
    voxels = np.zeros(24 * 20 * 4, np.float32)
    voxels[5] = np.nan
    return _header(dtype=np.float32) + voxels.tobytes()


def _bad_checksum() -> bytes:
    packed = bytearray(gzip.compress(_whole()))
    packed[-8] ^= 0xFF
    return bytes(packed)


NIFTI = {
    "nothing": (b"", 400, "an empty body"),
    "another kind": (b"\x89PNG\r\n\x1a\n" + bytes(400), 415, "a file of another kind, expected a NIfTI file"),
    "json": (b'{"image": []}', 415, "another kind"),
    "a packed page": (gzip.compress(b"<html>not found</html>" * 99), 415, "another kind"),
    "a packed tar": (_tar(), 415, "another kind"),
    "a single slice": (_one_slice(), 415, "a single DICOM file"),
    "a pair's header": (_header(magic=b"ni1"), 415, "the header of a NIfTI pair"),
    "a damaged start": (b"\x1f\x8b\x08\x00" + bytes(50), 422, "a damaged gzip file"),
    "not deflate": (b"\x1f\x8b\x09\x00" + bytes(50), 422, "a damaged gzip file"),
    "a gzip header of 1 MB": (b"\x1f\x8b\x08\x08" + bytes(6) + b"n" * 1_000_000, 415, "another kind"),
    "a bomb of zeros": (_bomb(1000), 415, "another kind"),
    "a bomb behind a small header": (_bomb(1000, _header()), 422, "its header tells of less"),
    "a bomb that says so": (_bomb(50, _header((500, 500, 100))), 413, "a volume of 25,000,000 voxels"),
    "cut short, packed": (gzip.compress(_whole())[:-20], 422, "truncated or damaged gzip file"),
    "cut short, packed well": (gzip.compress(_whole()[:2000]), 422, "truncated or damaged"),
    "cut short": (_whole()[:2000], 422, "a NIfTI file cut short"),
    "cut short in the header": (_whole()[:200], 415, "another kind"),
    "a wrong checksum": (_bad_checksum(), 422, "damaged gzip file"),
    "one axis": (_whole((24,)), 422, "1 axes"),
    "two axes": (_whole((24, 20)), 422, "2 axes of sizes (24, 20), expected a volume of three axes"),
    "four axes": (_whole((24, 20, 4, 3)), 422, "4 axes of sizes (24, 20, 4, 3)"),
    "five axes": (_whole((24, 20, 4, 1, 3)), 422, "5 axes of sizes (24, 20, 4, 1, 3)"),
    "no voxels": (_whole((24, 0, 4)), 422, "axes of sizes (24, 0, 4)"),
    "negative axes": (_header((24, -20, -4)) + bytes(5000), 422, "axes of sizes (24, -20, -4)"),
    "huge axes": (gzip.compress(_header((32767, 32767, 32767))), 413, "35,181,150,961,663 voxels"),
    "huge axes, seven": (_header((32767,) * 7), 422, "7 axes"),
    "huge axes, NIfTI-2": (_header((2**40, 2**40, 2**40), cls=nib.Nifti2Header), 413, "voxels"),
    "one long axis": (_header((1, 1, 900_000), cls=nib.Nifti2Header), 413, "at most 4096 along an axis"),
    "wide voxels": (_header((200, 100, 49), np.complex128), 413, "unpacks to 16 MB"),
    "an unknown type": (_header(datatype=77) + bytes(5000), 422, "a damaged NIfTI header"),
    "colours": (_header(datatype=128, bitpix=24) + bytes(9000), 422, "expected plain numbers"),
    "complex numbers": (_whole(dtype=np.complex64), 422, "expected plain numbers"),
    "voxels far behind": (_header(vox_offset=1e30) + bytes(5000), 422, "voxels that begin at byte 1e+30"),
    "voxels nowhere": (_header(vox_offset=np.nan) + bytes(5000), 422, "voxels that begin at byte nan"),
    "voxels before the file": (_header(vox_offset=-1e6) + bytes(5000), 422, "voxels that begin at byte -1e+06"),
    "a huge extension": (
        _header(vox_offset=1.5e6)[:-4] + b"\1\0\0\0" + struct.pack("<ii", 2**31 - 16, 4) + bytes(1_510_000),
        422,
        "not a readable NIfTI file",
    ),
    "not a number": (_not_a_number(), 422, "1 of 1920 voxels are NaN or infinite"),
    "no place": (_whole(srow_x=[np.nan] * 4), 422, "does not place voxels in space"),
    "flat": (_whole(srow_z=[0] * 4), 422, "not invertible"),
    "huge voxels": (_whole(srow_x=[1e30, 0, 0, 0]), 422, "does not place voxels in space"),
    "slope that is no number": (_whole(scl_slope=np.inf, scl_inter=np.nan), 200, ""),
}


@pytest.mark.parametrize("name", NIFTI)
def test_files_that_are_no_scan(served, name):
    body, status, message = NIFTI[name]
    if len(body) > 2_000_000:
        status = 413
    _refused(served.post(body), status, message)


def _refused(answer: requests.Response, status: int, message: str) -> None:
    assert answer.status_code == status, answer.text
    if status == 200:
        return
    assert answer.headers["Content-Type"] == problems.MEDIA_TYPE
    problem = answer.json()
    assert problem["status"] == status
    assert message in problem["detail"]
    assert "\n" not in problem["detail"]
    assert "/tmp" not in problem["detail"]
    assert "Traceback" not in problem["detail"]


def _entry(name: str, *, mode: int = 0, content: bytes = b"x", flags: int = 0, **options) -> bytes:
    """A zip with one file of this name, as no well-meaning program writes it."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        entry = zipfile.ZipInfo("A" * len(name.encode()))
        entry.external_attr = mode << 16
        archive.writestr(entry, content, **options)
    whole = bytearray(stream.getvalue().replace(entry.filename.encode(), name.encode()))
    whole[6] |= flags  # local header
    whole[whole.index(b"PK\x01\x02") + 8] |= flags
    return bytes(whole)


def _many(count: int, name: str = "{0}") -> bytes:
    return zipped({name.format(index): b"" for index in range(count)}, compression=zipfile.ZIP_STORED)


def _overlapping() -> bytes:
    """Many entries of the directory that share one packed megabyte (Fifield, WOOT 2019)."""
    whole = zipped({"a": bytes(1_000_000)})
    at, end_at = whole.index(b"PK\x01\x02"), whole.index(b"PK\x05\x06")
    entry, end = bytearray(whole[at : at + 46]), bytearray(whole[end_at:])
    entry[28:30] = struct.pack("<H", 4)  # length of the name
    directory = b"".join(bytes(entry) + b"%04d" % index for index in range(5000))
    end[8:12] = struct.pack("<HH", 5000, 5000)
    end[12:16] = struct.pack("<I", len(directory))
    return whole[:at] + directory + bytes(end)


def _big_directory() -> bytes:
    whole = bytearray(zipped({"a": b"x"}))
    at = whole.index(b"PK\x05\x06")
    whole[at + 12 : at + 16] = struct.pack("<I", 2**31)
    return bytes(whole)


def _wrong_sizes() -> bytes:
    """Says a byte, unpacks to 5 MB."""
    whole = bytearray(zipped({"a": bytes(5_000_000)}))
    at = whole.index(b"PK\x01\x02")
    whole[at + 24 : at + 28] = struct.pack("<I", 1)
    whole[22:26] = struct.pack("<I", 1)
    return bytes(whole)


def _damaged() -> bytes:
    whole = bytearray(zipped(series(), compression=zipfile.ZIP_STORED))
    whole[2000] ^= 0xFF
    return bytes(whole)


def _deflated_bomb() -> bytes:
    """A DICOM file in the deflated transfer syntax, which pydicom unpacks as a whole."""
    ds = pydicom.dcmread(get_testdata_file("CT_small.dcm", download=False))
    ds.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    stream = io.BytesIO()
    ds.save_as(stream)
    whole = stream.getvalue()
    start = 128 + 4 + 12 + ds.file_meta.FileMetaInformationGroupLength
    meta = whole[:start].replace(b"1.2.840.10008.1.2.1\0", b"1.2.840.10008.1.2.1.99")
    body = _deflated(whole[start:], 1000)
    grown = bytearray(meta)
    length = struct.unpack("<I", meta[140:144])[0] + 2
    grown[140:144] = struct.pack("<I", length)
    at = meta.index(b"1.2.840.10008.1.2.1.99")
    grown[at - 2 : at] = struct.pack("<H", 22)
    return bytes(grown) + body


def _slice(**tags) -> bytes:
    ds = pydicom.dcmread(get_testdata_file("CT_small.dcm", download=False))
    for name, value in tags.items():
        setattr(ds, name, value)
    stream = io.BytesIO()
    ds.save_as(stream)
    return stream.getvalue()


PLAIN = "expected plain relative names"
ZIPS = {
    "nothing in it": (zipped({}), 422, "no DICOM files"),
    "no slices in it": (zipped({"a.txt": b"x", "b.txt": b"y"}), 422, "no DICOM among its 2 files (a.txt, b.txt)"),
    "a NIfTI in it": (zipped({"scan.nii": _whole()}), 422, "no DICOM among its 1 files (scan.nii)"),
    "a zip in it": (zipped({"a.zip": zipped(series())}), 422, "no DICOM"),
    "cut short": (zipped(series())[:-30], 422, "a truncated zip"),
    "only its start": (b"PK\x03\x04" + bytes(100), 422, "a truncated zip"),
    "damaged": (_damaged(), 422, "a damaged zip"),
    "upwards": (_entry("../../evil.dcm"), 422, PLAIN),
    "upwards inside": (_entry("a/../../evil"), 422, PLAIN),
    "absolute": (_entry("/etc/evil.dcm"), 422, PLAIN),
    "a drive": (_entry("C:evil.dcm"), 422, PLAIN),
    "backslashes": (_entry("..\\evil.dcm"), 422, PLAIN),
    "a NUL": (_entry("evil\0.dcm"), 422, PLAIN),
    "a long name": (_entry("n" * 300), 422, PLAIN),
    "a long way": (_entry("/".join(["folder"] * 400)), 422, PLAIN),
    "a deep way": (_entry("d/" * 16 + "a.dcm"), 422, PLAIN),
    "many folders": (_many(2_000, "d/{0}/" * 7 + "a.dcm"), 413, "folders, expected at most 10,000"),
    "a link": (_entry("link", mode=stat.S_IFLNK | 0o777, content=b"/etc/passwd"), 422, "is a link or no file"),
    "a device": (_entry("device", mode=stat.S_IFCHR), 422, "is a link or no file"),
    "encrypted": (_entry("secret", flags=1), 422, "is encrypted"),
    "LZMA": (_entry("a", compress_type=zipfile.ZIP_LZMA), 422, "another way than deflate"),
    "bzip2": (_entry("a", compress_type=zipfile.ZIP_BZIP2), 422, "another way than deflate"),
    "a bomb": (zipped({"a.dcm": bytes(21_000_000)}), 413, "unpacks to 21 MB, expected at most 15 MB"),
    "many bombs in one": (_overlapping(), 413, "unpacks to 5,000 MB"),
    "a bomb that lies": (_wrong_sizes(), 422, "a damaged zip"),
    "many files": (_many(10_001), 413, "a zip of 10,001 files, expected at most 10,000"),
    "a huge directory": (_big_directory(), 413, "a zip with a directory of 2,147,483,648 bytes"),
    "a file that is a folder": (zipped({"a": b"x", "a/b": b"y"}), 422, "a damaged zip"),
    "a deflated slice": (zipped({"IM0": _deflated_bomb()}, compression=0), 422, "upload/IM0: not a readable DICOM"),
    "a huge slice": (zipped({"IM0": _slice(Rows=65535, Columns=65535)}), 413, "more memory"),
    "no CT": (zipped({"IM0": _slice(Modality="MR")}), 422, "Modality MR, expected CT"),
    "two series": (zipped({"IM0": _slice(), "IM1": _slice(SeriesInstanceUID="1.2.3.4")}), 422, "2 series"),
    "cut-off pixels": (zipped({"IM0": _one_slice()[:9000]}), 422, "upload/IM0: "),
}


@pytest.mark.parametrize("name", ZIPS)
def test_zips_that_hold_no_series(served, name):
    _refused(served.post(ZIPS[name][0]), *ZIPS[name][1:])


def test_two_files_of_one_name(served):
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("IM0", b"x")
        with pytest.warns(UserWarning, match="Duplicate name"):
            archive.writestr("IM0", b"y")
    _refused(served.post(stream.getvalue()), 422, "a damaged zip")


def test_too_much_is_refused_with_and_without_a_length(served):
    body = bytes(3_000_000)
    _refused(served.post(body), 413, "an upload of more than 2 MB, which is the most")
    parts = (body[at : at + 100_000] for at in range(0, len(body), 100_000))
    _refused(served.post(parts), 413, "an upload of more than 2 MB, which is the most")


def test_a_form_is_told_how_to_send_the_file(served):
    answer = requests.post(f"{served.url}v1/segment", files={"file": b"x"}, timeout=10)
    _refused(answer, 415, "expected the file itself as the body (curl --data-binary @FILE)")


def test_a_page_of_another_site_cannot_make_a_browser_send_scans(served, tmp_path):
    body = nifti(scan(), folder=tmp_path)
    _refused(served.post(body, headers={"Sec-Fetch-Site": "cross-site"}), 403, "a page of another site")
    assert served.post(body, headers={"Sec-Fetch-Site": "same-origin"}).status_code == 200


@pytest.mark.parametrize(
    ("method", "path", "status", "message"),
    [
        ("GET", "v1/segment", 405, "Method Not Allowed"),
        ("GET", "v1/nothing", 404, "Not Found"),
        ("GET", "../../etc/passwd", 404, "Not Found"),
        ("GET", "docs", 404, "Not Found"),
        (
            "POST",
            "v1/segment?response=music",
            422,
            "response: Input should be 'segmentation', 'dicom_seg', 'report', 'page' or 'all'",
        ),
    ],
)
def test_requests_for_something_else(served, method, path, status, message):
    _refused(requests.request(method, f"{served.url}{path}", timeout=10), status, message)


def test_an_answer_of_no_type_that_there_is(served, tmp_path):
    answer = served.post(nifti(scan(), folder=tmp_path), headers={"Accept": "image/png, application/json;q=0"})
    _refused(answer, 406, "Accept: found 'image/png, application/json;q=0', expected one of application/gzip")


def test_air_alone_is_the_senders_fault(served, tmp_path, monkeypatch):
    from kits_ml.errors import InputError

    def refuse(image, **options):
        raise InputError("no foreground: all voxels are at most 0 HU")

    monkeypatch.setattr(served.network, "segment", refuse)
    _refused(served.post(nifti(scan(), folder=tmp_path)), 422, "no foreground")


def test_a_fault_of_the_service_gives_nothing_away(served, tmp_path, monkeypatch):
    def fail(image, **options):
        raise KeyError("/home/me/secret")

    monkeypatch.setattr(served.network, "segment", fail)
    answer = served.post(nifti(scan(), folder=tmp_path))
    assert answer.status_code == 500
    assert answer.json()["detail"] == "a fault of the service; its log says which"


def test_a_reader_that_dies_is_replaced(served, tmp_path, monkeypatch):
    reader = served.service._reader

    def die() -> None:
        monkeypatch.undo()
        reader._process.kill()

    monkeypatch.setattr(reader, "start", die)
    _refused(served.post(nifti(scan(), folder=tmp_path)), 422, "reading it ended the reader")
    assert served.post(nifti(scan(), folder=tmp_path)).status_code == 200


_WHOLE = {"nii": _whole(), "gz": gzip.compress(_whole()), "zip": zipped(series(2))}


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    kind=st.sampled_from(sorted(_WHOLE)),
    changes=st.lists(st.tuples(st.integers(0, 1 << 16), st.integers(0, 255)), min_size=1, max_size=8),
    keep=st.floats(0.1, 1),
)
def test_files_with_a_few_bytes_changed(shared, kind, changes, keep):
    body = bytearray(_WHOLE[kind])
    for at, value in changes:
        body[at % len(body)] = value
    answer = shared.post(bytes(body[: round(keep * len(body))]))
    assert answer.status_code in (200, 413, 415, 422), answer.text
    assert shared.files() == []


_SLICES = series(2)
_HEADER_BYTES = len(_SLICES["study/IM0"]) - 128 * 128 * 2  # pixels come last


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    name=st.sampled_from(sorted(_SLICES)),
    changes=st.lists(st.tuples(st.integers(0, _HEADER_BYTES - 1), st.integers(0, 255)), max_size=8),
    keep=st.one_of(st.just(1.0), st.floats(0, 1)),
)
def test_slices_with_a_few_bytes_changed(shared, name, changes, keep):
    """In a zip that is whole, so that it is the reader of DICOM that meets them."""
    content = bytearray(_SLICES[name])
    for at, value in changes:
        content[at] = value
    files = {**_SLICES, name: bytes(content[: round(keep * len(content))])}
    answer = shared.post(zipped(files, compression=zipfile.ZIP_STORED))
    assert answer.status_code in (200, 413, 422), answer.text
    assert requests.get(f"{shared.url}health", timeout=5).status_code == 200
    assert shared.files() == []

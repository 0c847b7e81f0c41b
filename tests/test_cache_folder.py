"""The folder of compiled programs: nothing but whole files of this user's is ever used, whatever happens to writer and disk."""
import errno
import os
import random
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from graphc import cache as module
from graphc.cache import ABANDONED, MAGIC, Folder
from graphc.cli import main
from graphc.config import Options
from graphc.program import packed

ROOT = Path(__file__).resolve().parent.parent
KEY, OTHER = "0" * 63 + "a", "0" * 63 + "b"
DOCUMENT, BLOBS = {"name": "x", "numbers": [1, 2.5, None]}, [b"code" * 1000, b"", b"\x00\xff"]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "_warned", set())
    return Folder(tmp_path / "a" / "b", 2**30)


def file_of(folder, key=KEY):
    return folder.path / f"{key}.program"


def test_what_is_saved_is_loaded(folder):
    assert folder.load(KEY) is None
    assert folder.entries() == []
    folder.save(KEY, DOCUMENT, BLOBS)
    assert folder.load(KEY) == ({"key": KEY, **DOCUMENT}, BLOBS)
    assert folder.load(OTHER) is None
    assert [e.key for e in folder.entries()] == [KEY]
    assert folder.path.stat().st_mode & 0o777 == 0o700
    assert file_of(folder).stat().st_mode & 0o777 == 0o600
    assert folder.clear() == 1
    assert folder.load(KEY) is None


def test_a_damaged_file_is_not_used(folder):
    folder.save(KEY, DOCUMENT, BLOBS)
    whole = file_of(folder).read_bytes()
    rng = random.Random(0)
    places = {0, 5, len(MAGIC), len(MAGIC) + 20, len(MAGIC) + 32, len(MAGIC) + 40, len(whole) // 2, len(whole) - 1,
              *(rng.randrange(len(whole)) for _ in range(40))}
    for at in sorted(places):
        flipped = bytearray(whole)
        flipped[at] ^= 1 << rng.randrange(8)
        for bad in (bytes(flipped), whole[:at], whole[:at] + b"\0" * (len(whole) - at), whole[:at] + whole[at + 1:]):
            if bad != whole:
                file_of(folder).write_bytes(bad)
                module._warned.clear()
                with pytest.warns(RuntimeWarning, match="not used"):
                    assert folder.load(KEY) is None, at
    file_of(folder).write_bytes(whole + b"x")
    assert folder.load(KEY) is None
    folder.save(KEY, DOCUMENT, BLOBS)        # who compiled again replaces it
    assert folder.load(KEY) is not None


def test_a_file_under_another_name_is_not_used(folder):
    folder.save(KEY, DOCUMENT, BLOBS)
    os.rename(file_of(folder), file_of(folder, OTHER))
    with pytest.warns(RuntimeWarning, match="content of another file"):
        assert folder.load(OTHER) is None


def test_a_warning_comes_once(folder, recwarn):
    folder.save(KEY, DOCUMENT, BLOBS)
    file_of(folder).write_bytes(b"")
    for _ in range(3):
        assert folder.load(KEY) is None
    assert len(recwarn) == 1


# who may touch it ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", [0o770, 0o707, 0o777])
def test_a_folder_that_others_may_write_is_refused(folder, mode):
    folder.save(KEY, DOCUMENT, BLOBS)
    folder.path.chmod(mode)
    with pytest.warns(RuntimeWarning, match="others may write the folder"):
        assert folder.load(KEY) is None
    with pytest.warns(RuntimeWarning, match="not kept"):
        folder.save(OTHER, DOCUMENT, BLOBS)
    assert not file_of(folder, OTHER).exists()
    with pytest.raises(OSError, match="others may write"):
        folder.entries()
    with pytest.raises(OSError, match="others may write"):
        folder.clear()


def test_a_file_that_others_may_write_is_refused(folder):
    folder.save(KEY, DOCUMENT, BLOBS)
    file_of(folder).chmod(0o606)
    with pytest.warns(RuntimeWarning, match="others may write"):
        assert folder.load(KEY) is None


@pytest.mark.parametrize("call", ["lstat", "fstat"])
def test_what_belongs_to_another_user_is_refused(folder, monkeypatch, call):
    """lstat: the folder's name; fstat: the folder as it was opened, and the file."""
    folder.save(KEY, DOCUMENT, BLOBS)
    real = getattr(os, call)

    def foreign(*args, **kwargs):
        status = list(real(*args, **kwargs))
        status[4] += 1                       # st_uid
        return os.stat_result(status)
    monkeypatch.setattr(os, call, foreign)
    with pytest.warns(RuntimeWarning, match="belongs to another user"):
        assert folder.load(KEY) is None
    with pytest.warns(RuntimeWarning, match="belongs to another user"):
        folder.save(OTHER, DOCUMENT, BLOBS)
    monkeypatch.undo()
    assert folder.load(OTHER) is None


def test_only_the_file_belongs_to_another_user(folder, monkeypatch):
    folder.save(KEY, DOCUMENT, BLOBS)
    owners = []
    real = module._require_ours

    def check(status, what):
        owners.append(what)
        if what != "the folder":
            status = os.stat_result([*status[:4], status.st_uid + 1, *status[5:]])
        real(status, what)
    monkeypatch.setattr(module, "_require_ours", check)
    with pytest.warns(RuntimeWarning, match="belongs to another user"):
        assert folder.load(KEY) is None
    assert owners == ["the folder", f"{KEY}.program"]


def test_links_are_not_followed(folder, tmp_path):
    folder.save(KEY, DOCUMENT, BLOBS)
    kept = tmp_path / "elsewhere"
    os.rename(file_of(folder), kept)
    file_of(folder).symlink_to(kept)
    with pytest.warns(RuntimeWarning, match="not used"):
        assert folder.load(KEY) is None
    before = kept.read_bytes()
    folder.save(KEY, {"name": "y"}, [])      # the link is replaced, not what it leads to
    assert kept.read_bytes() == before
    assert not file_of(folder).is_symlink()
    assert folder.load(KEY) == ({"key": KEY, "name": "y"}, [])
    os.unlink(file_of(folder))
    file_of(folder).symlink_to(kept)
    folder.clear()
    assert kept.read_bytes() == before


def test_pipes_and_folders_in_the_place_of_files(folder):
    folder.save(OTHER, DOCUMENT, BLOBS)
    os.mkfifo(file_of(folder), 0o600)        # to open it for reading would wait forever
    with pytest.warns(RuntimeWarning, match="is not a file"):
        assert folder.load(KEY) is None
    os.unlink(file_of(folder))
    file_of(folder).mkdir()
    module._warned.clear()
    with pytest.warns(RuntimeWarning, match="not used"):
        assert folder.load(KEY) is None
    with pytest.warns(RuntimeWarning, match="not kept"):
        folder.save(KEY, DOCUMENT, BLOBS)
    assert [p.name for p in folder.path.iterdir() if p.suffix == ".part"] == []


def test_a_file_in_the_place_of_the_folder(tmp_path, folder):
    (tmp_path / "a").write_text("")
    with pytest.warns(RuntimeWarning, match="not kept"):
        folder.save(KEY, DOCUMENT, BLOBS)
    with pytest.warns(RuntimeWarning, match="not used"):
        assert folder.load(KEY) is None


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="nothing is forbidden to root")
def test_a_folder_that_cannot_be_written(folder):
    folder.save(KEY, DOCUMENT, BLOBS)
    folder.path.chmod(0o500)
    with pytest.warns(RuntimeWarning, match="not kept"):
        folder.save(OTHER, DOCUMENT, BLOBS)
    assert folder.load(KEY) is not None
    folder.path.chmod(0o700)


# room ----------------------------------------------------------------------------------------------------------------------


def test_a_full_disk(folder, monkeypatch):
    real = open

    class Full:
        def __init__(self, handle, mode):
            self.file = real(handle, mode)

        def __enter__(self):
            return self

        def write(self, data):
            self.file.write(data[:len(data) // 2])
            self.file.flush()
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        def __exit__(self, *_):
            self.file.close()
    monkeypatch.setattr(module, "open", Full, raising=False)
    with pytest.warns(RuntimeWarning, match="No space left"):
        folder.save(KEY, DOCUMENT, BLOBS)
    monkeypatch.undo()
    assert list(folder.path.iterdir()) == []
    assert folder.load(KEY) is None


def test_a_limit_on_the_size_of_files(folder):
    code = f"""
        import resource, warnings
        from pathlib import Path
        from graphc.cache import Folder
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
        warnings.simplefilter("error")
        try:
            Folder(Path({str(folder.path)!r}), 2**30).save({KEY!r}, {{}}, [b"x" * 5000])
        except RuntimeWarning as e:
            print(e)
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, cwd=ROOT, timeout=60)
    assert "compiled programs are not kept" in done.stdout, done.stderr
    assert "too large" in done.stdout
    assert list(folder.path.iterdir()) == []


def test_what_was_not_used_for_longest_goes_first(tmp_path):
    size = len(packed(MAGIC, {"key": KEY}, [b"x" * 1000]))
    folder = Folder(tmp_path / "c", 10 * size)
    keys = [f"{k:064x}" for k in range(11)]
    for k, key in enumerate(keys[:10]):
        folder.save(key, {}, [b"x" * 1000])
        os.utime(file_of(folder, key), (1000 + k, 1000 + k))
    assert folder.load(keys[0]) is not None                     # a use: now it is the youngest
    folder.save(keys[10], {}, [b"x" * 1000])
    left = {e.key for e in folder.entries()}
    assert left == {keys[0], *keys[5:]}                         # down to three quarters of the limit
    folder.save(OTHER, {}, [b"x" * 11 * size])                  # larger than all the room
    assert {e.key for e in folder.entries()} == left


def test_unfinished_files_are_cleared_away(folder):
    folder.save(KEY, DOCUMENT, BLOBS)
    old, new = (folder.path / f"{KEY}.{k:016x}.part" for k in range(2))
    foreign = folder.path / "notes.txt"
    for path in (old, new, foreign):
        path.write_bytes(b"half")
    past = time.time() - ABANDONED - 10
    os.utime(old, (past, past))
    os.utime(foreign, (past, past))
    folder.save(OTHER, DOCUMENT, BLOBS)
    assert not old.exists()
    assert new.exists()                                         # somebody may be writing it
    assert folder.clear() == 3
    assert [p.name for p in folder.path.iterdir()] == ["notes.txt"]


# several processes ---------------------------------------------------------------------------------------------------------

WRITER = """
    import itertools, sys
    from pathlib import Path
    from graphc import cache
    folder = cache.Folder(Path(sys.argv[1]), 2**30)
    keys = [f"{k:064x}" for k in range(4)]
    files = {}
    for k, key in enumerate(keys):
        files[key] = cache.packed(cache.MAGIC, {"key": key, "number": k}, [bytes([k]) * 3_000_000, b"end"])
    cache.packed = lambda magic, document, blobs: files[document["key"]]    # all the time goes into writing
    print("ready", flush=True)
    for key in itertools.cycle(keys):
        folder.save(key, {}, [])
"""


def check_all(folder):
    for entry in folder.entries():
        document, blobs = folder.read(entry.key)                # raises when anything is wrong
        assert blobs == [bytes([document["number"]]) * 3_000_000, b"end"]


def test_kill_at_any_moment(folder):
    """A process that is killed while it writes leaves whole files, or none. What it began is no program."""
    rng = random.Random(1)
    killed_inside = 0
    for _ in range(10):
        child = subprocess.Popen([sys.executable, "-c", textwrap.dedent(WRITER), str(folder.path)], stdout=subprocess.PIPE,
                                 cwd=ROOT)
        assert child.stdout.readline() == b"ready\n"
        time.sleep(rng.uniform(0, 0.05))
        child.send_signal(signal.SIGKILL)
        child.wait()
        child.stdout.close()
        check_all(folder)
        parts = list(folder.path.glob("*.part")) if folder.path.exists() else []
        killed_inside += bool(parts)
        for part in parts:
            part.unlink()
    assert folder.entries()
    assert killed_inside, "no process was killed while it wrote"


def test_processes_that_write_at_once(folder):
    children = [subprocess.Popen([sys.executable, "-c", textwrap.dedent(WRITER), str(folder.path)], stdout=subprocess.PIPE,
                                 cwd=ROOT) for _ in range(3)]
    for child in children:
        assert child.stdout.readline() == b"ready\n"
    end = time.monotonic() + 1
    while time.monotonic() < end:
        check_all(folder)                                       # readers see whole files only, whoever wrote last
    for child in children:
        assert child.poll() is None, "a writer failed"
        child.kill()
        child.wait()
        child.stdout.close()
    check_all(folder)
    assert len(folder.entries()) == 4


# the command ---------------------------------------------------------------------------------------------------------------


def test_the_command(cache, monkeypatch, capfd):
    def ran(*words):
        code = main(["cache", *words])
        return code, *capfd.readouterr()
    folder = Folder(cache, 2**30)
    assert ran("list") == (0, f"{'key':<14}{'size':>10}{'kernels':>9}  {'last used':<18}name\n", "")
    assert ran("clear")[1] == "removed 0 files\n"
    folder.save(KEY, {"name": "step", "programs": [{"objects": {"a": 0, "b": 1}}]}, BLOBS)
    folder.save(OTHER, DOCUMENT, BLOBS)
    os.utime(file_of(folder), (1, 1))
    code, out, err = ran("list")
    rows = [line.split() for line in out.splitlines()[1:]]
    assert (code, err) == (0, "")
    assert [(r[0], r[-1]) for r in rows] == [(OTHER[:12], "x"), (KEY[:12], "step")]
    assert rows[1][3] == "2"
    assert file_of(folder).stat().st_mtime == 1, "to be looked at is not to be used"
    code, out, err = ran("info")
    assert str(cache) in out
    assert "programs  2\n" in out
    assert "1.0 GiB" in out
    assert ran("verify") == (0, "2 programs are whole\n", "")
    file_of(folder).write_bytes(file_of(folder).read_bytes()[:-1])
    code, out, err = ran("verify")
    assert (code, out) == (1, "")
    assert "1 of 2 programs cannot be used" in err
    assert KEY[:12] in err
    assert "(damaged)" in ran("list")[1]
    assert ran("clear")[1] == "removed 2 files\n"
    cache.chmod(0o777)
    code, out, err = ran("info")
    assert (code, out) == (1, "")
    assert "others may write the folder" in err
    assert ran("melt")[0] == 2


@pytest.mark.parametrize(("text", "size"), [("100", 100), ("2K", 2048), ("3m", 3 * 2**20), ("1G", 2**30), ("", 2**30)])
def test_the_limit_has_units(text, size, monkeypatch):
    monkeypatch.setenv("GRAPHC_CACHE_LIMIT", text)
    assert Options().cache_limit == size


@pytest.mark.parametrize("text", ["x", "-1", "1.5G", "10Q", "G"])
def test_a_limit_that_is_no_number(text, monkeypatch):
    monkeypatch.setenv("GRAPHC_CACHE_LIMIT", text)
    with pytest.raises(ValueError, match="GRAPHC_CACHE_LIMIT must be a number of bytes"):
        Options()


def test_where_the_folder_is(monkeypatch, tmp_path):
    monkeypatch.setattr(Path, "home", lambda: tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    monkeypatch.setattr(sys, "platform", "linux")
    assert module.default_folder() == tmp_path / "xdg" / "graphc"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert module.default_folder() == tmp_path / ".cache" / "graphc"
    monkeypatch.setattr(sys, "platform", "darwin")
    assert module.default_folder() == tmp_path / "Library" / "Caches" / "graphc"

    def homeless():
        raise RuntimeError("Could not determine home directory.")
    monkeypatch.setattr(Path, "home", homeless)
    assert module.default_folder().name == f"graphc-{os.getuid()}"

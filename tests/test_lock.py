"""The lock of a folder: a second process is refused in one line, and the lock ends with its process."""

import os
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from fedjax_lc.core import lock
from fedjax_lc.core.errors import InputError
from fedjax_lc.core.lock import locked

HOLD = """
import sys, time
from fedjax_lc.core.lock import locked
with locked(sys.argv[1]):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def holder(tmp_path):
    """A process that holds the lock of a folder, and that folder."""
    folder = tmp_path / "out"
    settings = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])}
    process = subprocess.Popen([sys.executable, "-c", HOLD, folder], env=settings, stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "held\n"
    yield process, folder
    process.kill()
    process.wait()
    process.stdout.close()


def test_a_second_process_is_refused_and_told_by_whom(holder):
    process, folder = holder
    with pytest.raises(InputError) as caught, locked(folder):
        pass
    owner = f"{process.pid} on {socket.gethostname()}"
    assert str(caught.value) == f"{folder} is in use by process {owner}: wait until it ends, or choose another folder"


def test_the_lock_dies_with_its_process(holder):
    process, folder = holder
    process.send_signal(signal.SIGKILL)
    process.wait()
    with locked(folder):
        assert (folder / ".lock").read_text() == f"{os.getpid()} on {socket.gethostname()}\n"
    assert list(folder.iterdir()) == []


def test_threads_are_kept_apart_and_one_holds_it_at_a_time(tmp_path):
    """Many threads take the lock again and again, while its file comes and goes; never do two hold it."""
    holding, most, taken = [0], [0], [0]

    def work():
        while taken[0] < 200:
            try:
                with locked(tmp_path):
                    holding[0] += 1
                    most[0] = max(most[0], holding[0])
                    taken[0] += 1
                    holding[0] -= 1
            except InputError:
                pass

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [1]
    assert taken[0] >= 200


def test_an_exception_ends_the_lock(tmp_path):
    with pytest.raises(ZeroDivisionError), locked(tmp_path):
        raise ZeroDivisionError
    with locked(tmp_path):
        pass


def test_a_file_system_without_locks_is_one_note(tmp_path, monkeypatch, capsys):
    def fail(file):
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr(lock, "_take", fail)
    with locked(tmp_path):
        pass
    assert capsys.readouterr().err == (
        f"note: the file system of {tmp_path} has no locks: let one process at a time write it\n"
    )


def test_a_folder_that_cannot_be_made_is_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(InputError, match=r"^cannot write .*out: .*; choose a folder you may write to$"),
        locked(tmp_path / "file" / "out"),
    ):
        pass

"""A table is one process."""

from flowexp.cli import main


def test_a_table_under_torchrun_is_refused(monkeypatch, tmp_path, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "0")
    assert main(["table", "pfgmpp/cifar10", "budget=cpu", "dry=true"]) == 2
    assert "2 processes were started for one table" in capsys.readouterr().err

"""The terminal: what it says of a search, in every window and in none, at a cost that does not grow."""

from __future__ import annotations

import io
import pickle
import re
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from search.console import console as console_module
from search.console import state as standings
from search.console.console import Console, Header, dashboard_command
from search.console.state import Standings
from search.console.steps import PlainLines, Steps, is_live
from search.console.table import Column, fit
from search.console.time_left import Plan
from search.console.views import Frame, Window, live_lines
from search.runs import run as results
from search.runs.gain import Prospect
from search.runs.journal import Journal, Trial
from search.runs.run import best_of
from tests.support.simulated_search import simulate

HEADER = Header(
    run="runs/made-up", data="demo: 400 clips", space="spaces/quick.yaml: 2 dimensions", mirror="local",
    how_to_watch="swanlab watch runs/made-up/swanlog", notes=("no --data given: using the built-in DEMO set",),
)  # fmt: skip
PLAN = Plan(trials=16, concurrency=3, epochs=9, grace_epochs=2, reduction_factor=3.0)
FRAME = Frame("runs/made-up", "swanlab watch runs/made-up/swanlog", ("SwanLab does not answer",))


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    return Journal(tmp_path / "events.jsonl")


def play(journal: Journal, plan: Plan, until: float = 1e9, **extra: Any) -> Standings:
    """Writes a simulated search into the journal; `extra`: further dimensions of the suggested trials."""
    kept = Standings(journal, plan)
    journal.listen(kept.update)
    journal.session(command=[])
    for event in simulate(plan, seed=1):
        values = event.values
        if event.time > until:
            break
        if values["event"] == "suggested":
            params = {**values["params"], **extra} if values["kind"] == "search" else {}
            journal.suggested(values["kind"], values["name"], params, {**values["config"], **extra})
        elif values["event"] == "reported":
            journal.reported(*(values[key] for key in ("trial", "epoch", "value", "loss", "decision")))
        else:
            journal.ended(values["trial"], values["status"], values["message"])
    return kept


def shown(kept: Standings, width: int, height: int) -> list[str]:
    lines = live_lines(kept, FRAME, Window(width, height), time.time())
    assert all(line.cell_len <= width for line in lines)
    assert len(lines) <= max(height - 2, 1)
    return [line.plain for line in lines]


def test_the_time_left_expects_cuts_of_baselines_only_where_they_may_be_cut(journal: Journal):
    config = {"backbone": "resnet18", "epochs": 1000}
    for number in range(4):
        journal.suggested("baseline", f"recipe-{number}", {}, config)
        journal.reported(number, 1, 0.5, 1.0, "continue")
    left = {}
    for cut in (False, True):
        kept = Standings(journal, Plan(4, 4, 1000, 2, 3.0, cut_baselines=cut))
        left[cut] = kept.time_left(time.time())
    assert left[True][0] < 0.5 * left[False][0]


@pytest.mark.slow
def test_standings_kept_event_by_event_are_those_of_the_one_rule_for_best(journal: Journal):
    kept = Standings(journal, PLAN)
    leaders = []
    journal.listen(lambda event: leaders.append(kept.update(event)))
    play(journal, PLAN)
    trials = list(journal.trials.values())
    anew = Standings(Journal(journal.path), PLAN)  # as a resumed driver has them
    for found in (kept, anew):
        assert [(b.trial.number, b.epoch) for b in found.top] == [
            (b.trial.number, b.epoch) for b in results.rank(trials, PLAN.grace_epochs)[: standings.TOP]
        ]
        assert found.counts["cut"] + found.counts["finished"] == 16
        assert not found.running
    assert leaders.count(True) == sum(_leads(journal, index) for index in range(len(leaders)))


def _leads(journal: Journal, index: int) -> bool:
    """Whether the event of that number made a new best, found by ranking everything anew."""
    lines = journal.path.read_text().splitlines(keepends=True)
    before, after = journal.path.with_name("before"), journal.path.with_name("after")
    before.write_text("".join(lines[:index]))
    after.write_text("".join(lines[: index + 1]))
    old, new = (best_of(Journal(path).trials.values(), PLAN.grace_epochs) for path in (before, after))
    return new is not None and (old is None or new.accuracy > old.accuracy)


@pytest.mark.parametrize(("width", "height"), [(80, 24), (40, 12), (20, 6), (10, 3), (1, 2), (140, 40), (300, 100)])
@pytest.mark.parametrize("until", [0.0, 4.0, 20.0, 1e9])
def test_the_view_fits_every_window_at_every_moment(journal: Journal, width: int, height: int, until: float):
    kept = play(journal, PLAN, until, image_size=224, weight_decay=1e-4)
    journal.suggested("search", "", {"backbone": "resnext101_32x8d" * 3, "lr": 1e-4}, {"epochs": 10_000})
    journal.ended(len(journal.trials) - 1, "failed", "Traceback\n\x1b[31mRuntimeError: [bold]\x07 日本語\n" * 9)
    shown(kept, width, height)


def test_80_by_24_shows_counts_best_speed_running_and_top(journal: Journal):
    text = "\n".join(shown(play(journal, PLAN, until=20.0), 80, 24))
    assert re.search(r"Trials +━+─+ +\d+ of 16: 3 running, ", text)
    assert re.search(r"Best    \d\d\.\d%, trial \d+ at epoch \d+, [+-]\d+\.\d points on recipe-0", text)
    assert "epochs per minute" in text
    assert "! SwanLab does not answer" in text
    assert re.search(r"trial +running +epoch +val acc +settings", text)
    assert re.search(r"trial +val acc +epoch +status +name +backbone +lr", text)


def test_only_dimensions_that_differ_are_columns(journal: Journal):
    text = "\n".join(shown(play(journal, PLAN, image_size=224), 140, 40))
    assert "backbone" in text
    assert "image_size" not in text


def test_many_running_trials_are_folded(journal: Journal):
    kept = play(journal, Plan(64, 64, 9, 2, 3.0), until=0.0)
    assert "and 52 more" in shown(kept, 120, 60)
    assert any(re.fullmatch(r"and \d+ more", line) for line in shown(kept, 80, 24))


@pytest.mark.slow
def test_a_thousand_trials_cost_no_more_than_a_few(journal: Journal, monkeypatch: pytest.MonkeyPatch):
    looked_at: list[int] = []  # trials whose best epoch was looked for
    best_epoch = results.best_epoch

    def counted(trial: Trial, grace_epochs: int) -> results.Best | None:
        looked_at.append(trial.number)
        return best_epoch(trial, grace_epochs)

    monkeypatch.setattr(results, "best_epoch", counted)
    most = 0

    def listener(event: dict[str, Any]) -> None:
        nonlocal most
        most = max(most, len(looked_at))
        looked_at.clear()

    journal.listen(listener)  # called before those that `play` adds: sees what the event before has cost
    kept = play(journal, Plan(1000, 64, 4, 1, 3.0))
    assert 0 < most <= 2 * (standings.TOP + 1)  # the ten best and the trial itself; twice for a baseline
    looked_at.clear()
    shown(kept, 80, 24)
    assert not looked_at


def test_without_a_terminal_every_event_is_one_plain_line(journal: Journal):
    stream = io.StringIO()
    with Console(journal, HEADER, PLAN, stream) as console:
        journal.listen(console.on_event)
        for done in range(0, 401):
            console.progress("computing mels", done, 400)
        play(journal, PLAN, note="x" * 200)
        console.warn("SwanLab does not answer\x1b[2J")
    text = stream.getvalue()
    events = journal.path.read_text().count("\n") - 1  # a session is not news
    lines = text.splitlines()
    assert len([line for line in lines if re.match(r"\d\d:\d\d:\d\d trial ", line)]) == events
    assert [line for line in lines if line.startswith("computing mels")] == [
        f"computing mels: {done} of 400" for done in (0, 100, 200, 300, 400)
    ]
    assert "\x1b" not in text
    assert not re.search(r"[^\x20-\x7e\n]", text)
    assert max(map(len, lines)) > 200  # nothing is wrapped
    assert "! SwanLab does not answer" in lines
    assert "! " not in lines[0]
    assert any("DEMO" in line for line in lines[:10])


def test_a_training_that_validates_nothing_shows_no_accuracy(journal: Journal):
    stream = io.StringIO()
    config = {"epochs": 2, "train_on": "other-folds"}
    with Console(journal, HEADER, PLAN, stream) as console:
        journal.listen(console.on_event)
        journal.session(command=[])
        for number in range(2):
            journal.suggested("retrain", f"trial 3, seed {number}", {}, config)
            journal.reported(number, 1, 0.0, 0.0, "continue")
            journal.reported(number, 2, 0.0, 0.0, "continue")
        journal.ended(0, "finished")
    text = stream.getvalue()
    assert re.search(r"trial 0 \(trial 3, seed 0\) epoch 1/2\n", text)
    assert "val acc" not in text
    assert "best so far" not in text
    kept = Standings(journal, PLAN)
    assert kept.top == []
    assert results.rank(journal.trials.values(), 1) == []
    assert any(re.match(r"1 .* 2/2 +- ", line.strip()) for line in shown(kept, 80, 24))


def test_a_tie_that_the_lower_loss_decides_is_announced_as_the_best_so_far(journal: Journal):
    kept = Standings(journal, PLAN)
    news = []
    journal.listen(lambda event: news.append(kept.update(event)))
    for number, loss in enumerate((9.0, 2.0, 3.0)):
        journal.suggested("search", "", {}, {"epochs": 1})
        journal.reported(number, 1, 0.6, loss, "continue")
        journal.ended(number, "finished")
    assert [number for number, new in enumerate(news[2::3]) if new] == [0, 1]
    assert kept.top[0].trial.number == 1


def test_a_failed_trial_says_its_last_line_and_where_the_traceback_is(tmp_path: Path, journal: Journal):
    stream = io.StringIO()
    header = Header(run=str(tmp_path), data="demo", space="quick")
    (tmp_path / "trial_0000").mkdir()
    (tmp_path / "trial_0000" / "error.txt").write_text("Traceback ...")
    with Console(journal, header, PLAN, stream) as console:
        journal.listen(console.on_event)
        for _ in range(2):
            journal.suggested("search", "", {}, {"epochs": 9})
        journal.ended(0, "failed", "RuntimeError: shapes\n\n")
        journal.ended(1, "out_of_memory", "no room for batch 64 at 512 px")
    text = stream.getvalue()
    assert f"trial 0 failed: RuntimeError: shapes (traceback in {tmp_path}/trial_0000/error.txt) [1 of 16" in text
    assert "trial 1 ran out of memory: no room for batch 64 at 512 px [2 of 16" in text


def test_the_summary_names_epoch_interval_baseline_folder_and_next_commands(journal: Journal):
    stream = io.StringIO()
    play(journal, PLAN)
    Console(journal, HEADER, PLAN, stream).finish(validation_clips=200, trust="95% interval 80.0% to 95.0%")
    text = stream.getvalue()
    best = best_of(journal.trials.values(), PLAN.grace_epochs)
    assert f"Best    {best.accuracy:.1%}, trial {best.trial.number} at epoch {best.epoch}, +" in text
    assert f"{round(200 * best.accuracy)} of 200 validation clips, 95% interval 80.0% to 95.0%\n" in text
    assert "Run     runs/made-up\n" in text
    assert text[text.index("Next") :].splitlines() == [
        "Next",
        "  compare swanlab watch runs/made-up/swanlog",
        "  retrain python run_search.py retrain runs/made-up",
        "  report  python run_search.py report runs/made-up",
    ]


def test_the_view_and_the_summary_say_what_going_on_promises_once_that_is_known(journal: Journal):
    assert not any(line.startswith("Gain") for line in shown(play(journal, PLAN, until=4.0), 100, 30))
    longer = Journal(journal.path.with_name("longer.jsonl"))
    plan = replace(PLAN, trials=64)
    kept = play(longer, plan)
    gain = Prospect(plan.grace_epochs, longer.trials.values()).gain()
    assert gain is not None
    assert f"Gain    {gain}" in shown(kept, 100, 30)
    stream = io.StringIO()
    Console(longer, HEADER, plan, stream).finish(validation_clips=200)
    assert re.search(r"^Gain    \d+ more trials promise \+\d+\.\d points \(", stream.getvalue(), re.M)


def test_the_summary_says_what_ended_the_search_before_its_budget(journal: Journal):
    stream = io.StringIO()
    play(journal, PLAN, until=4.0)
    journal.stopped("target accuracy")
    Console(journal, HEADER, PLAN, stream).finish(validation_clips=200)
    assert "Ended   target accuracy\n" in stream.getvalue()


def test_a_resumed_search_shows_its_preparation_until_it_is_done(journal: Journal):
    kept = play(journal, PLAN, until=4.0)
    for done, seen in ((5, True), (10, False)):
        frame = Frame("runs/made-up", steps={"computing mels": (done, 10)})
        lines = live_lines(kept, frame, Window(80, 24), time.time())
        assert any("computing mels" in line.plain for line in lines) is seen
        assert any("Trials" in line.plain for line in lines)


def test_an_interrupted_search_says_how_to_resume(journal: Journal):
    stream = io.StringIO()
    play(journal, PLAN, until=0.0)
    Console(journal, HEADER, PLAN, stream).finish(validation_clips=200, interrupted=True)
    assert "  go on   python run_search.py resume runs/made-up\n" in stream.getvalue()
    there = io.StringIO()
    Console(journal, replace(HEADER, address="auto"), PLAN, there).finish(validation_clips=200, interrupted=True)
    assert "  go on   python run_search.py resume runs/made-up --address auto\n" in there.getvalue()
    assert "Best    none yet: a trial counts once it has got past epoch 2" in stream.getvalue()
    assert "retrain" not in stream.getvalue()


def test_a_terminal_keeps_header_and_summary_and_gets_its_cursor_back(journal: Journal):
    stream = Terminal()
    with Console(journal, HEADER, PLAN, stream, live=True) as console:
        journal.listen(console.on_event)
        play(journal, PLAN)
        console.warn("SwanLab does not answer")
        console.notice("stopping")
    console.finish(validation_clips=200)
    text = stream.getvalue()
    assert text.rindex("\x1b[?25h") > text.rindex("\x1b[?25l")
    after = text[text.rindex("\x1b[?25h") :]
    assert "SwanLab does not answer" in after
    assert "! stopping" in text
    assert "stopping" not in after
    assert "python run_search.py retrain runs/made-up" in after


def test_an_error_leaves_the_last_view_on_the_terminal(journal: Journal):
    stream = Terminal()

    def search() -> None:
        with Console(journal, HEADER, PLAN, stream, live=True) as console:
            journal.listen(console.on_event)
            play(journal, PLAN, until=20.0)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        search()
    after = stream.getvalue()[stream.getvalue().rindex("\x1b[?25h") :]
    assert "3 running" in after


def test_a_closed_pipe_ends_the_lines_and_not_the_search(journal: Journal):
    class Closed(io.StringIO):
        def write(self, text: str) -> int:
            raise BrokenPipeError

    with Console(journal, HEADER, PLAN, Closed()) as console:
        journal.listen(console.on_event)
        play(journal, PLAN)
    console.finish(validation_clips=200)
    assert all(trial.over for trial in journal.trials.values())


def test_a_line_that_another_thread_has_written_just_before_is_written_once():
    lines = PlainLines(io.StringIO())
    free = threading.Lock()

    class Late:
        """A lock that is got only after another thread has come, written all that waits, and gone."""

        release = free.release

        def acquire(self, blocking: bool) -> bool:
            lines._writing = free
            lines.write("of another thread")
            lines._writing = self
            return free.acquire(blocking=blocking)

    lines._writing = Late()
    lines.write("of one thread")
    assert lines.stream.getvalue() == "of one thread\nof another thread\n"


def test_ray_may_pickle_what_holds_a_console_or_its_journal(journal: Journal):
    with Console(journal, HEADER, PLAN, Terminal(), live=True) as console:
        journal.listen(console.on_event)
        play(journal, PLAN, until=4.0)
        copied, _ = pickle.loads(pickle.dumps((journal, console.warn)))
    assert copied.trials == journal.trials


@pytest.mark.parametrize(
    ("environment", "live"),
    [
        ({"TERM": "xterm-256color"}, True), ({"TERM": "dumb"}, False), ({}, False),
        ({"TERM": "xterm", "CI": "true"}, False), ({"TERM": "xterm", "CI": "0"}, True),
    ],
)  # fmt: skip
def test_dumb_terminals_and_ci_get_no_live_view(environment: dict[str, str], live: bool):
    assert is_live(Terminal(), environment) is live
    assert not is_live(io.StringIO(), environment)


def test_steps_are_bars_on_a_terminal_and_quarters_elsewhere():
    plain, terminal = io.StringIO(), Terminal()
    for stream, live in ((plain, False), (terminal, True)):
        with Steps(stream, live=live) as progress:
            for done in range(101):
                progress("reading clips", done, 100)
            progress("fetching weights", 5, 0)
    assert plain.getvalue().splitlines() == [
        *(f"reading clips: {done} of 100" for done in (0, 25, 50, 75, 100)), "fetching weights: 5 of 0",
    ]  # fmt: skip
    assert "━━━━━━━━━━━━━━━━━━  reading clips  100 of 100" in re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", terminal.getvalue())


def test_steps_leave_the_terminal_to_another_view_while_they_are_paused():
    stream = Terminal()
    with Steps(stream, live=True) as steps:
        steps("reading clips", 100, 100)
        with steps.paused():
            before = len(stream.getvalue())
            steps("trained by others", 1, 2)
            assert len(stream.getvalue()) == before
        steps("scoring", 1, 2)
    after = stream.getvalue()[before:]
    assert "scoring" in after
    assert "reading clips" not in after


def test_a_table_leaves_out_what_does_not_fit_by_name():
    columns = [
        Column("trial", ["1", "22"]), Column("label_smoothing", ["0.1", "0"]), Column("lr", ["1e-4", "2e-4"]),
        Column("backbone", ["resnet18"] * 2, right=False),
    ]  # fmt: skip
    table = fit(columns, 24)
    assert [line.plain for line in (*table.header, *table.rows)] == [
        "          label_      ",
        "trial  smoothing    lr",
        "    1        0.1  1e-4",
        "   22          0  2e-4",
    ]
    assert table.left_out == ["backbone"]


def test_the_live_view_says_which_columns_and_rows_it_left_out(journal: Journal):
    kept = play(journal, PLAN)
    wide, narrow = (shown(kept, width, 40) for width in (300, 44))
    assert not [line for line in wide if "no room" in line]
    (said,) = [line for line in narrow if "no room for" in line]
    header = " ".join(narrow)
    assert any(key not in header.replace(said, "") and key in said for key in kept.keys)
    low = shown(kept, 300, 14)
    (more,) = [line for line in low if re.fullmatch(r"and \d+ more", line)]
    rows = sum(bool(re.match(r" *\d+ +\d+\.\d%", line)) for line in low)
    assert rows + int(more.split()[1]) == len(kept.top)


def test_the_header_names_the_dashboard_where_it_is_installed(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(console_module, "find_spec", lambda name: object() if name == "optuna_dashboard" else None)
    monkeypatch.setattr(console_module, "program", lambda name: name)
    command = dashboard_command("runs/my run")
    assert command == "optuna-dashboard 'sqlite:///runs/my run/study.db'"
    lines = [line.plain for line in replace(HEADER, dashboard=command).lines()]
    assert f"Optuna  {command}" in lines
    monkeypatch.setattr(console_module, "find_spec", lambda name: None)
    assert dashboard_command("runs/my run") == ""
    assert not [line for line in HEADER.lines() if line.plain.startswith("Optuna")]

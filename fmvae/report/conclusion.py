"""What a report's numbers say, in sentences made by rules: the best settings, ties, the front, the next commands.

The functions take runs and settings, and return texts; they read and write no files.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from fmvae.report.above import not_above, tells
from fmvae.report.caveats import at_last_epoch, caveats, diverged
from fmvae.report.collect import Run
from fmvae.report.comparable import DIFFER
from fmvae.report.comparison import markdown, text
from fmvae.report.continuing import Command, Started, again, compare_seeds, measure_again, more_epochs, more_seeds
from fmvae.report.levels import by_data
from fmvae.report.naming import Names, count, few
from fmvae.report.ranking import SHARE, Ranking, front, rankings, standard_error
from fmvae.report.settings import Setting

Unfinished = Callable[[Sequence[Run], Sequence[Run]], Mapping[str, Sequence[Run]]]
MAX_COMMANDS = 3  # of one kind
NOTE = (
    "± is the standard error of a mean over seeds or, of one seed, of the measure. Settings tie if the means of "
    f"equal ones would differ as much in {1 - SHARE:.0%} of all cases (Welch's t test), which with two seeds each "
    "takes more than four standard errors of the difference. The best of many is chosen, so its lead is a little "
    "too large."
)
ON_FRONT = 6  # settings of the front that are named


class Sentence(NamedTuple):
    """A sentence of the conclusion. ``lead``, its first words, names its subject, a setting, and may be empty."""

    lead: str
    rest: str

    def __str__(self) -> str:
        return self.lead + self.rest


class Conclusion(NamedTuple):
    """What the runs say, best first; what to beware of; and the commands that go on from here."""

    findings: list[Sentence]
    warnings: list[str]
    commands: list[Command]
    note: str = ""

    def markdown(self) -> str:
        """Return the conclusion as a list in Markdown, with the commands in a block of code below it."""
        leads = [f"**{markdown(one.lead)}**" if one.lead else "" for one in self.findings]
        parts = [f"- {lead}{markdown(f'.{one.rest}')[1:]}" for lead, one in zip(leads, self.findings, strict=True)]
        parts += [f"- Beware: {markdown(one)}" for one in self.warnings]
        parts += ["", markdown(self.note)] if self.note else []
        lines = [line for one in self.commands for line in (f"# {one.purpose}", one.line)]
        return "\n".join(parts) + ("\n\n```bash\n" + "\n".join(lines) + "\n```" if lines else "")


def conclude(
    runs: Sequence[Run],
    settings: Sequence[Setting],
    started: Started,
    folder: str,
    unfinished: Unfinished = lambda able, others: {},
    uncompared: Sequence[Setting] = (),
) -> Conclusion:
    """Return what the runs say.

    Args:
        settings: of the complete runs.
        started: tells how a run was started, for the commands.
        folder: the folder of the runs, for the commands.
        unfinished: ``starts.unfinished``, the commands that finish several runs at once; by default none.
        uncompared: settings of which other seeds' latents could be compared (UDR), and were not.
    """
    others = [run for run in runs if run.state not in ("complete", "classifier")]
    if not settings:
        return Conclusion([_nothing(runs)], caveats(runs, [], [], Names([])), _finish(others, started, unfinished))
    names, groups = Names(settings), by_data(settings)
    found = {data: [one for one in rankings(group) if tells(one.column, group)] for data, group in groups.items()}
    ranked = [ranking for of_data in found.values() for ranking in of_data]
    findings = []
    for data, group in groups.items():
        within = Names(group)  # the data are named before each sentence
        own = _single(group[0], within) if len(group) == 1 else _best(found[data], within)
        own += [Sentence(*said) for said in not_above(group, within)]
        own += _front(group, within) if len(group) > 1 else []
        findings += [_of_data(data, one) for one in own] if len(groups) > 1 else own
    commands = [*_finish(others, started, unfinished), *_continue(settings, ranked, names, started)]
    if any(_can_be_measured_alike(ranking) for ranking in ranked):
        commands.append(Command("measure all runs alike", measure_again(folder)))
    if uncompared:
        what = f"compare the latents of seeds (UDR, {count(len(uncompared), 'setting')})"
        commands.append(Command(what, compare_seeds(folder)))
    note = NOTE if any("±" in one.rest for one in findings) else ""
    return Conclusion(findings, caveats(runs, settings, ranked, names), commands, note)


def _of_data(data: str, said: Sentence) -> Sentence:
    """Return a sentence that names the data, as numbers of other data do not compare."""
    return Sentence(f"{data}: {said.lead}", said.rest) if said.lead else Sentence(f"{data}:", f" {said.rest}")


def _nothing(runs: Sequence[Run]) -> Sentence:
    vaes = [run for run in runs if run.state != "classifier"]
    if vaes and all(run.state == "failed" for run in vaes):
        told = "The run failed" if len(vaes) == 1 else f"All {len(vaes):,} runs failed"
        return Sentence("", f"{told}, so there is nothing to compare.")
    return Sentence("", "No run is complete yet, so there is nothing to compare.")


def _value(ranking: Ranking, setting: Setting) -> str:
    """Return a setting's mean of a column, ± its standard error if it is known."""
    column, statistic = ranking.column, setting.statistic(ranking.column.tag)
    assert statistic is not None
    error = standard_error(setting, column.tag)
    return text(column, statistic.mean) + ("" if error is None else f" ± {text(column, error)}")


def _single(setting: Setting, names: Names) -> list[Sentence]:
    told = [f"{one.column.header} {_value(one, setting)}" for one in rankings([setting]) if not one.refused]
    numbers = f": {few(told, len(told))}" if told else ""
    said = "; there is no other setting to compare it with."
    return [Sentence(names.of(setting), f"{numbers}{said}")]


def _best(ranked: Sequence[Ranking], names: Names) -> list[Sentence]:
    """Return a sentence for each setting that is best by some columns, and one for each column with ties."""
    won: defaultdict[int, list[Ranking]] = defaultdict(list)
    tied, alone = [], []
    for ranking in ranked:
        if ranking.refused:
            continue
        if len(ranking.settings) == 1:
            alone.append(ranking)
        elif ranking.ties:
            tied.append(ranking)
        else:
            won[id(ranking.best)].append(ranking)
    sentences = []
    for own in won.values():
        by = few([f"{one.column.header} ({_value(one, one.best)})" for one in own], len(own))
        sentences.append((own[0], Sentence(names.of(own[0].best), f" is best by {by}.")))
    sentences += [(ranking, _tied(ranking, names)) for ranking in tied]
    sentences += [(ranking, _alone(ranking, names)) for ranking in alone]
    order = {id(ranking): i for i, ranking in enumerate(ranked)}
    return [sentence for _, sentence in sorted(sentences, key=lambda one: order[id(one[0])])]


def _tied(ranking: Ranking, names: Names) -> Sentence:
    column, both = ranking.column, [ranking.best, *ranking.ties]
    if len(both) == len(ranking.settings) > 2:
        told = f"all {len(both):,} settings tie with the best mean, {_value(ranking, ranking.best)}"
        return Sentence(f"No setting is best by {column.header}:", f" {told}.")
    others = few([f"{names.of(one)} ({_value(ranking, one)})" for one in ranking.ties])
    told = f" has the best mean {column.header} ({_value(ranking, ranking.best)}), but ties with {others}."
    return Sentence(names.of(ranking.best), told)


def _alone(ranking: Ranking, names: Names) -> Sentence:
    told = f" alone has {ranking.column.header} ({_value(ranking, ranking.best)}), so nothing compares with it."
    return Sentence(names.of(ranking.best), told)


def _front(settings: Sequence[Setting], names: Names) -> list[Sentence]:
    found, having = front(settings), [one for one in settings if one.statistic("test/kl")]
    if not found or len(having) < 2:
        return []
    if len(found) == len(having):
        told = "every setting is on the front: each lower recon costs a higher KL."
    else:
        on, most = len(found), max(ON_FRONT, 2)
        verb = "is" if on == 1 else "are"
        told = f"{on:,} of {len(having):,} settings {verb} on the front, from the lowest KL on: "
        told += f"{names.some(found, most)}. Each other one is beaten in both KL and recon by one of these."
    return [Sentence("", f"Rate and distortion: {told}")]


def _finish(incomplete: Sequence[Run], started: Started, unfinished: Unfinished) -> list[Command]:
    """Return the commands that finish runs.

    A run that diverged would diverge again. Whoever trains a sweep finishes its runs.
    """
    training = [run for run in incomplete if run.state == "running"]
    busy = {run.directory.path.parent for run in training if (start := started(run)) is None or start.sweep}
    able = [
        run
        for run in incomplete
        if run.state not in ("damaged", "running", "pruned")
        and not diverged(run)
        and run.directory.path.parent not in busy
    ]
    ids = set(map(id, able))
    at_once = unfinished(able, [run for run in incomplete if id(run) not in ids])
    commands = [
        Command(f"finish {own[0].directory.path.parent.name} ({count(len(own), 'run')} left)", line)
        for line, own in at_once.items()
    ]
    covered = {id(run) for own in at_once.values() for run in own}
    rest = [run for run in able if id(run) not in covered]
    lines = [(run, line) for run in rest[:MAX_COMMANDS] if (line := again(run, started))]
    more = f" (and {len(rest) - len(lines)} more like it)" if lines and len(rest) > len(lines) else ""
    commands += [
        Command(f"finish {run.name}{more if i == len(lines) - 1 else ''}", line)
        for i, (run, line) in enumerate(lines)
    ]
    return commands[:MAX_COMMANDS]


def _continue(
    settings: Sequence[Setting], ranked: Sequence[Ranking], names: Names, started: Started
) -> list[Command]:
    """Return the commands for the settings that matter most: the best, their ties, and those that may tie.

    They are in the order of columns; of those, the ones with the fewest seeds get more seeds first.
    """
    valid = [ranking for ranking in ranked if not ranking.refused]
    firsts = [ranking.best for ranking in valid] + [one for ranking in valid for one in ranking.ties]
    # where the best has several seeds and no known rival, the next one may be as good: more of its seeds will tell
    unsure = [ranking for ranking in valid if ranking.unknown and not ranking.ties and len(ranking.best.runs) > 1]
    firsts += [ranking.unknown[0] for ranking in unsure]
    chosen = list({id(one): one for one in firsts or settings}.values())[:MAX_COMMANDS]
    fewest = sorted(chosen, key=lambda one: len(one.runs))
    commands = [Command(f"more seeds of {names.of(one)}", more_seeds(one, started)) for one in fewest]
    commands += [
        Command(f"more epochs of {names.of(one)}", more_epochs(one, started))
        for one in chosen[:1]
        if any(at_last_epoch(run) for run in one.runs)
    ]
    return [command for command in commands if command.line]


def _can_be_measured_alike(ranking: Ranking) -> bool:
    """Return whether numbers do not compare only because of a measure's settings, not of data or likelihoods."""
    return DIFFER in ranking.refused and not any(word in ranking.refused for word in (" data", "images-idx"))

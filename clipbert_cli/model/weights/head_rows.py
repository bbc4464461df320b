"""The outputs of a saved head that a model takes over: those that mean the same.

Two heads of the same size may answer with colours and with animals, or say whether a text matches and whether a
question is answered with yes. What the outputs mean is stored with the weights (`HeadSpec`); shapes say nothing of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from clipbert_cli.foreign import excerpt
from clipbert_cli.model.heads import HeadSpec
from clipbert_cli.printable import plural, shortened

_UNKNOWN = "taken over as they are, because the file does not say what they mean"


@dataclass(frozen=True)
class HeadRows:
    """The outputs of a saved head that a model takes over.

    Attributes:
        rows: for each output of the model the output of the file, None for a new one; None if all are taken as they
            are, or none.
        saved_outputs: the number of outputs in the file, where `rows` is given.
        other: what the file's outputs mean instead, if none is taken over.
        table: (what happens, how many outputs, their names), for people. The number is 0 if it is not known.
    """

    rows: tuple[int | None, ...] | None = None
    saved_outputs: int = 0
    other: str = ""
    table: tuple[tuple[str, int, str], ...] = ()

    @classmethod
    def between(cls, saved: HeadSpec | None, own: HeadSpec) -> HeadRows:
        """Compare a saved head with the model's own.

        Args:
            saved: None if the file does not say what its outputs mean, as files of other projects.
        """
        if saved is None or saved.task is None or own.task is None:
            # The two outputs of a pretraining head can mean nothing else.
            known = own.kind == "pretraining"
            return cls(table=(("taken over", own.num_outputs, "") if known else (_UNKNOWN, 0, ""),))
        if saved.task != own.task:
            return cls._new(f"a head of task {saved.task}", own)
        if saved.answers is None or own.answers is None or saved == own:
            if saved.num_outputs != own.num_outputs:
                return cls._new(f"a head with {plural(saved.num_outputs, 'output')}", own)
            return cls(table=(("taken over", own.num_outputs, ""),))
        return cls._of_answers(saved.answers, saved.num_outputs, own)

    @classmethod
    def _new(cls, other: str, own: HeadSpec) -> HeadRows:
        return cls(other=other, table=(("new", own.num_outputs, ""),))

    @classmethod
    def _of_answers(cls, saved: Sequence[str], outputs: int, own: HeadSpec) -> HeadRows:
        """Find the output of each answer. Outputs without an answer are new: nothing says what they learned."""
        assert own.answers is not None
        place = {answer: number for number, answer in enumerate(saved)}
        rows = [place.get(answer) for answer in own.answers]
        if all(row is None for row in rows):
            return cls._new(f"an answer layer of {len(saved)} other answers, such as {saved[0]!r}", own)
        kept = [answer for number, answer in enumerate(own.answers) if rows[number] == number]
        moved = [answer for number, answer in enumerate(own.answers) if rows[number] not in (number, None)]
        new = [answer for answer, row in zip(own.answers, rows, strict=True) if row is None]
        left = [answer for answer in saved if answer not in set(own.answers)]
        named = (("taken over", kept), ("taken over, moved", moved), ("new", new), ("left out", left))
        table = [(what, len(answers), _named(answers)) for what, answers in named if answers]
        if spare := own.num_outputs - len(rows):
            table.append(("new, without an answer", spare, ""))
        return cls(tuple(rows) + (None,) * spare, outputs, table=tuple(table))


def _named(answers: Sequence[str]) -> str:
    """Return the first answers, each in a few words, and how many more there are."""
    return shortened([excerpt(repr(answer), 30) for answer in answers], 2)

"""Answer vocabularies, and the answer normaliser of the published VQA evaluation, which VQA's vocabulary is made with.

The order of the normaliser's steps and its two oddities decide which 3,129 answers exist, so they are kept: a full stop
stays only before a digit (".5" stays, "3." loses it), and "somebody'd" loses the apostrophe that all other contractions
gain.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from clipbert_cli.assets.convert.raw_files import read_json
from clipbert_cli.errors import AnnotationError

PUNCTUATION = ';/[]"{}()=+\\_-><@`,?!'
_WORDS = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"]
NUMBERS = {**{word: str(n) for n, word in enumerate(_WORDS)}, "none": "0"}
ARTICLES = {"a", "an", "the"}
_CONTRACTED = """
    ain't aren't can't could've couldn't couldn't've didn't doesn't don't hadn't hadn't've hasn't haven't he'd've
    how'd how'll how's isn't it'd it'd've it'll ma'am mightn't mightn't've might've mustn't must've needn't not've
    o'clock oughtn't 'ow's'at shan't she'd've should've shouldn't shouldn't've somebody'd've somebody'll somebody's
    someone'd someone'd've someone'll someone's something'd something'd've something'll that's there'd there'd've
    there're there's they'd they'd've they'll they're they've 'twas wasn't we'd've we've weren't what'll what're
    what's what've when's where'd where's where've who'd who'd've who'll who's who've why'll why're why's won't
    would've wouldn't wouldn't've y'all y'all'll y'all'd've you'd you'd've you'll you're you've he'd he's
"""
# The published table lists each contraction with one of its apostrophes missing.
CONTRACTIONS = {
    word[:at] + word[at + 1 :]: word for word in _CONTRACTED.split() for at, letter in enumerate(word) if letter == "'"
}
CONTRACTIONS["somebody'd"] = "somebodyd"


def normalize_answer(answer: str) -> str:
    """Return an answer as VQA's evaluation writes it: `A dog, and two cats!` -> `dog and 2 cats`."""
    text = answer
    has_number_comma = re.search(r"\d,\d", answer) is not None
    for mark in PUNCTUATION:
        # The published code looks at the answer as it was, not at the text that earlier marks have changed.
        beside_space = f"{mark} " in answer or f" {mark}" in answer
        text = text.replace(mark, "" if beside_space or has_number_comma else " ")
    text = re.sub(r"\.(?!\d)", "", text)
    words = [NUMBERS.get(word, word) for word in text.lower().split()]
    words = [CONTRACTIONS.get(word, word) for word in words if word not in ARTICLES]
    return " ".join(words).replace(",", "")


def answer_vocabulary(answers: Iterable[str], size: int) -> dict[str, int]:
    """Return answer -> label for the `size` most frequent answers; of equally frequent ones the first seen comes first.

    Blank answers are left out.
    """
    return {answer: label for label, (answer, _) in enumerate(Counter(filter(str.strip, answers)).most_common(size))}


def read_vocabulary(path: Path) -> dict[str, int]:
    """Return a published answer vocabulary in the order of its labels.

    Raises:
        AnnotationError: it is not an object with the labels 0, 1, 2, ...
    """
    labels = read_json(path)
    if (
        not isinstance(labels, dict)
        or not labels
        or any(type(label) is not int for label in labels.values())
        or sorted(labels.values()) != list(range(len(labels)))
    ):
        raise AnnotationError(
            f"{path}: an object of answers and the labels 0, 1, 2, ... was expected",
            hint="get the file again, or remove it: the answers are then counted",
        )
    return dict(sorted(labels.items(), key=lambda item: item[1]))

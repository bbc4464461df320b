"""Where each public file is, what becomes of it, and which of them a recipe needs: `catalog.yaml`, read and checked.

    catalogue ── files     one file each: sources in order, size, checksum, how it is unpacked
              ── assets ── parts    a thing that is complete or not: files in, outputs under the data folder out
              ── recipes   recipe name or pattern -> the parts it needs

A part is named `asset/part`. Every figure carries a mark of how sure it is, see `Mark`.
"""

from __future__ import annotations

import fnmatch
from functools import cache
from importlib import resources
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from clipbert_cli.errors import CatalogError, UsageError

Kind = Literal["annotations", "media", "weights"]
Mark = Literal["verified", "single source", "inferred", "unverified"]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
FileId = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*/[A-Za-z0-9][A-Za-z0-9._-]*$")]


def _relative(path: str) -> str:
    pure = PurePosixPath(path)
    if not path or pure.is_absolute() or ".." in pure.parts or "\\" in path:
        raise ValueError(f"{path!r} must be a path inside the data folder: relative, without '..'")
    return path


class Entry(BaseModel):
    """A part of the catalogue: frozen, strict about keys and types."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Source(Entry):
    """One place that may have the file: a URL, or a file of a Hugging Face repository."""

    url: str | None = Field(None, description="http or https address of the file itself")
    repo: str | None = Field(None, description="Hugging Face repository, owner/name")
    path: str | None = Field(None, description="the file's path in that repository")
    revision: str = Field("main", description="commit, tag or branch of that repository")
    repo_type: Literal["model", "dataset"] = Field("model", description="kind of that repository")
    mark: Mark = Field("unverified", description="how sure it is that the file is there")

    @model_validator(mode="after")
    def _one_kind(self) -> Source:
        if bool(self.url) == bool(self.repo and self.path):
            raise ValueError("a source is either `url`, or `repo` with `path`")
        if self.url and (urlsplit(self.url).scheme not in ("http", "https") or not urlsplit(self.url).hostname):
            raise ValueError(f"url is {self.url!r}: an address that starts with http:// or https:// was expected")
        return self

    @property
    def host(self) -> str:
        """The name of the server, or the address of the repository."""
        return urlsplit(self.url).hostname or "" if self.url else f"huggingface.co/{self.repo}"

    def __str__(self) -> str:
        return self.url or f"hf://{self.repo}@{self.revision}/{self.path}"


class FileEntry(Entry):
    """One public file. A size is checked where it is verified; a checksum always."""

    sources: list[Source] = Field(description="tried in this order; empty where no program may fetch it")
    bytes: Annotated[int, Field(ge=1)] | None = Field(None, description="exact size")
    about_bytes: Annotated[int, Field(ge=1)] | None = Field(None, description="rough size, for planning only")
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")] | None = Field(None, description="as published")
    md5: Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")] | None = Field(None, description="as published")
    mark: Mark = Field("unverified", description="how sure size and checksum are")
    unpack: Literal["zip", "tar"] | None = Field(None, description="the kind of archive, where it is one")
    members: list[str] | None = Field(None, description="patterns of the members to unpack; default: all")

    @property
    def expected_bytes(self) -> int | None:
        """The size to plan with: exact or rough."""
        return self.bytes or self.about_bytes


class Expect(Entry):
    """How much one output should hold."""

    records: int | None = Field(None, description="lines, or entries of an answer vocabulary")
    media: int | None = Field(None, description="distinct videos or images")
    mark: Mark = Field("unverified", description="how sure the figures are")


class Part(Entry):
    """Something that is complete or not: all files are here, unpacked, converted, in place."""

    kind: Kind
    title: str
    files: list[FileId] = Field(default_factory=list, description="needed")
    optional: list[FileId] = Field(default_factory=list, description="used where they can be had")
    convert: str | None = Field(None, description="annotations: name of the converter")
    folder: str | None = Field(None, description="annotations and weights: where outputs go; media: where files go")
    outputs: dict[str, Expect] = Field(default_factory=dict, description="annotations: file in folder -> its counts")
    totals: dict[str, Expect] = Field(default_factory=dict, description="`a+b` -> counts of several outputs together")
    place: dict[FileId, str] = Field(default_factory=dict, description="weights: file -> its name in folder")
    store: str | None = Field(None, description="media: the store that `pack` makes of folder")
    media_kind: Literal["video", "image"] | None = Field(None, description="media: what the folder holds")
    manual: str | None = Field(None, description="how a person gets it where no source answers")

    _check_folder = field_validator("folder", "store")(lambda value: value if value is None else _relative(value))

    @model_validator(mode="after")
    def _whole(self) -> Part:
        every: dict[str, tuple[str, ...]] = {
            "annotations": ("folder", "convert", "outputs"),
            "media": ("folder", "store", "media_kind"),
            "weights": ("folder", "place"),
        }
        missing = [name for name in every[self.kind] if not getattr(self, name)]
        if missing:
            raise ValueError(f"a part of kind {self.kind} needs {', '.join(missing)}")
        for name in (*self.outputs, *self.place.values()):
            _relative(name)
        unknown = {name for names in self.totals for name in names.split("+")} - set(self.outputs)
        if unknown:
            raise ValueError(f"totals names {', '.join(sorted(unknown))}: not in outputs")
        if self.kind == "weights" and set(self.place) != set(self.files):
            raise ValueError("place must name each of files, and nothing else")
        if self.kind == "media" and not self.files and not self.manual:
            raise ValueError("a part without files needs manual: how a person gets it")
        return self

    def products(self) -> list[str]:
        """Paths under the data folder that exist once the part is complete; a packed store stands for its media."""
        if self.kind == "media":
            return [str(self.store)]
        return [f"{self.folder}/{name}" for name in (*self.outputs, *self.place.values())]


class Asset(Entry):
    """A dataset or a set of weights, in parts."""

    title: str
    licence: str = Field(description="licence or terms of access, in one line")
    home: str | None = Field(None, description="page that describes it")
    parts: Annotated[dict[Name, Part], Field(min_length=1)]


class Catalog(Entry):
    """Everything `clipbert download` knows."""

    files: dict[FileId, FileEntry]
    assets: dict[Name, Asset]
    recipes: dict[str, list[str]] = Field(description="recipe name or pattern -> assets or parts it needs")

    @model_validator(mode="after")
    def _references(self) -> Catalog:
        wrong: list[str] = []
        for name, part in self.parts().items():
            wrong += [
                f"assets.{name}: file {file!r} is not under files"
                for file in (*part.files, *part.optional)
                if file not in self.files
            ]
            if part.kind == "media":
                wrong += [
                    f"assets.{name}: {file!r} of a media part needs unpack (zip or tar)"
                    for file in part.files
                    if file in self.files and not self.files[file].unpack
                ]
        known = {*self.assets, *self.parts()}
        wrong += [
            f"recipes.{recipe}: {needed!r} is no asset and no part"
            for recipe, needs in self.recipes.items()
            for needed in needs
            if needed not in known
        ]
        if wrong:
            raise ValueError("\n".join(wrong))
        return self

    def parts(self) -> dict[str, Part]:
        """All parts by their whole name, `asset/part`, in the catalogue's order."""
        return {f"{name}/{key}": part for name, asset in self.assets.items() for key, part in asset.parts.items()}

    def needs_of(self, recipe: str) -> list[str] | None:
        """What a recipe needs, an exact name before a pattern; None where the catalogue does not know it."""
        if recipe in self.recipes:
            return self.recipes[recipe]
        return next((needs for name, needs in self.recipes.items() if fnmatch.fnmatchcase(recipe, name)), None)

    def select(self, names: list[str], *, only: Kind | None = None) -> dict[str, Part]:
        """The parts that `names` (assets, parts, recipes) mean, in the catalogue's order.

        A name that is both an asset and a recipe means both.

        Raises:
            UsageError: a name that nothing has, or a kind that none of the parts has.
        """
        wanted: set[str] = set()
        parts = self.parts()
        for name in names:
            needs = self.needs_of(name)
            if needs is None and name not in self.assets and name not in parts:
                raise self._unknown(name)
            for needed in [name, *(needs or [])]:
                wanted |= {full for full in parts if full == needed or full.startswith(f"{needed}/")}
        chosen = {full: part for full, part in parts.items() if full in wanted and only in (None, part.kind)}
        if wanted and not chosen:
            raise UsageError(
                f"--only {only}: {', '.join(names)} has none",
                hint=f"its kinds are {', '.join(sorted({parts[full].kind for full in wanted}))}",
            )
        return chosen

    def _unknown(self, name: str) -> UsageError:
        from difflib import get_close_matches

        names = [*self.assets, *(recipe for recipe in self.recipes if "*" not in recipe), *self.parts()]
        close = get_close_matches(name, names, n=3)
        return UsageError(
            f"{name!r}: no asset, part or recipe of this name" + (f"; close: {', '.join(close)}" if close else ""),
            hint="list what there is with: clipbert assets ls",
        )


def load_catalog(extra: Path | None = None) -> Catalog:
    """The shipped catalogue, with `extra` laid over it.

    An entry of `extra` changes the fields that it names and keeps the others, so that a laboratory's file may say no
    more than `files: {coco/train2014.zip: {sources: [{url: ...}]}}`.

    Raises:
        CatalogError: every mistake at once, each with its place.
    """
    document = _shipped()
    where = "catalog.yaml"
    if extra is not None:
        where = str(extra)
        try:
            document = _laid_over(document, _parse(extra.read_text(encoding="utf-8"), where))
        except OSError as exc:
            raise CatalogError(f"--catalog {extra}: {exc.strerror}", hint="name a YAML file that can be read") from exc
        except UnicodeDecodeError as exc:
            raise CatalogError(f"--catalog {extra}: not UTF-8 text: {exc}", hint="name a YAML file") from exc
    try:
        return Catalog.model_validate(document)
    except ValidationError as exc:
        lines = []
        for mistake in exc.errors(include_url=False):
            place = ".".join(str(key) for key in mistake["loc"] if key != "[key]")
            message = mistake["msg"].removeprefix("Value error, ")
            lines.append(f"{where}: {place + ': ' if place else ''}{message}")
        raise CatalogError("\n".join(lines), hint="compare with the shipped catalog.yaml") from None


@cache
def _shipped() -> dict[str, Any]:
    text = resources.files("clipbert_cli.assets").joinpath("catalog.yaml").read_text(encoding="utf-8")
    return _parse(text, "catalog.yaml")


def _parse(text: str, where: str) -> dict[str, Any]:
    import yaml

    try:
        document = yaml.safe_load(text)
    except yaml.YAMLError as exc:
        raise CatalogError(f"{where}: not YAML: {exc}", hint="correct the file at that place") from exc
    if not isinstance(document, dict):
        raise CatalogError(f"{where}: a mapping with files, assets or recipes was expected, not {document!r}")
    return document


def _laid_over(base: Any, extra: Any) -> Any:
    """`extra` over `base`: mappings key by key, anything else replaced."""
    if not (isinstance(base, dict) and isinstance(extra, dict)):
        return extra
    return {**base, **{key: _laid_over(base.get(key), value) for key, value in extra.items()}}

"""The catalogue: where each public file is, how it is converted, and which files a recipe needs.

    catalog.yaml ── files     one entry per file: sources in order, size, checksum, how it is unpacked
                 ── assets ── parts    what is complete or not: input files, and outputs under the data folder
                 ── recipes   name or pattern of a recipe -> the parts that it needs

A part is named `asset/part`. Every figure has a `mark` that says how reliable it is (see catalog.yaml).
"""

from __future__ import annotations

import fnmatch
from functools import cache
from importlib import resources
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from clipbert_cli.errors import CatalogError, RecipeError, UnreadableError, UsageError
from clipbert_cli.foreign import excerpt, read_text
from clipbert_cli.printable import did_you_mean, listed
from clipbert_cli.recipe.values import MAX_BYTES, Mistake, nested, read_yaml
from clipbert_cli.types import Kind as MediaKind

PartKind = Literal["annotations", "media", "weights"]
Mark = Literal["verified", "single source", "inferred", "unverified"]
# Names become parts of paths, in DATA/downloads/ASSET/FILE: no name may lead out of a folder.
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
FileId = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*/[A-Za-z0-9][A-Za-z0-9._-]*$")]


def base_name(file: str) -> str:
    """Return the name of a file of the catalogue without its asset."""
    return file.rsplit("/", 1)[1]


def archive_kind(file: str) -> Literal["zip", "tar"] | None:
    """Return the kind of archive that a file is by its ending, None for other files."""
    return "zip" if file.endswith(".zip") else "tar" if file.endswith((".tar", ".tar.gz", ".tgz")) else None


def is_address(url: str) -> bool:
    """Return whether a text is an http or https address with a host."""
    try:
        return urlsplit(url).scheme in ("http", "https") and bool(urlsplit(url).hostname)
    except ValueError:  # half an IPv6 address, such as http://[::1
        return False


def _address(url: str) -> str:
    if not is_address(url):
        raise ValueError(f"{url!r}: an address that starts with http:// or https:// was expected")
    return url


def _relative(path: str) -> str:
    """Return a path that cannot lead out of the data folder."""
    pure = PurePosixPath(path)
    if not path or pure.is_absolute() or ".." in pure.parts or "\\" in path:
        raise ValueError(f"{path!r} must be a path inside the data folder: relative, without '..'")
    return path


class CatalogEntry(BaseModel):
    """The base of all entries: frozen, without unknown keys, and without conversions such as "12" to 12."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class FileEntry(CatalogEntry):
    """A public file. Its checksum is always checked; its size is, where it is verified."""

    sources: list[Annotated[str, AfterValidator(_address)]] = Field(
        description="http or https addresses, tried in this order; empty if the file must be fetched by hand"
    )
    note: str | None = Field(None, description="what is not known about its sources; shown with them and after use")
    bytes: Annotated[int, Field(ge=1)] | None = Field(None, description="exact size")
    about_bytes: Annotated[int, Field(ge=1)] | None = Field(None, description="approximate size, for planning only")
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")] | None = Field(None, description="as published")
    md5: Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")] | None = Field(None, description="as published")
    mark: Mark = Field("unverified", description="how reliable the size is")
    content: Literal["original ClipBERT checkpoint"] | None = Field(
        None, description="weights: what the file must hold, checked by the names and shapes of its entries"
    )
    members: list[str] | None = Field(None, description="archives: patterns of the members to unpack; default: all")

    @property
    def expected_bytes(self) -> int | None:
        """The size to plan with: the exact one, or else the approximate one."""
        return self.bytes or self.about_bytes


class ExpectedCount(CatalogEntry):
    """The published counts of an output file. A difference is a warning, not an error."""

    records: int | None = Field(None, description="lines, or entries of an answer vocabulary")
    media: int | None = Field(None, description="distinct videos or images")
    mark: Mark = Field("unverified", description="how reliable the figures are")


class AssetPart(CatalogEntry):
    """The unit that is complete or absent: its files are downloaded, unpacked, converted and in place."""

    kind: PartKind
    title: str
    files: list[FileId] = Field(default_factory=list, description="files that are needed")
    optional: list[FileId] = Field(default_factory=list, description="files that are used if a source gives them")
    convert: str | None = Field(None, description="annotations: name of the converter")
    folder: str | None = Field(None, description="folder of the outputs or the unpacked media")
    outputs: dict[str, ExpectedCount] = Field(default_factory=dict, description="annotations: file -> its counts")
    place: dict[FileId, str] = Field(
        default_factory=dict, description="weights: file -> its name in folder, if that is another one"
    )
    media_kind: MediaKind | None = Field(None, description="media: kind of the files")
    manual: str | None = Field(None, description="instructions for fetching it by hand")

    _check_folder = field_validator("folder")(lambda value: value if value is None else _relative(value))

    @model_validator(mode="after")
    def _whole(self) -> AssetPart:
        every: dict[str, tuple[str, ...]] = {
            "annotations": ("folder", "convert", "outputs"),
            "media": ("folder", "media_kind"),
            "weights": ("folder", "files"),
        }
        missing = [name for name in every[self.kind] if not getattr(self, name)]
        if missing:
            raise ValueError(f"a part of kind {self.kind} needs {', '.join(missing)}")
        # A catalogue of one's own may come from a stranger.
        for name in (*self.outputs, *self.place.values()):
            _relative(name)
        if self.kind == "media" and not self.files and not self.manual:
            raise ValueError("a part without files needs manual: instructions for fetching it by hand")
        return self

    def products(self) -> list[str]:
        """Return the paths, under the data folder, that recipes use: for media, the packed store."""
        if self.kind == "media":
            return [self.store]
        return [f"{self.folder}/{name}" for name in (*self.outputs, *self.weights().values())]

    @property
    def store(self) -> str:
        """The store that packing makes of a part that is media."""
        return f"vis_db/{PurePosixPath(str(self.folder)).name}"

    def weights(self) -> dict[str, str]:
        """Return file -> its name in the folder, for a part that is weights."""
        return {file: self.place.get(file, base_name(file)) for file in self.files if self.kind == "weights"}


class Asset(CatalogEntry):
    """A dataset or a set of weights, in parts."""

    title: str
    licence: str = Field(description="licence or terms of access, in one line")
    home: str | None = Field(None, description="page that describes it")
    parts: Annotated[dict[Name, AssetPart], Field(min_length=1)]


class Catalog(CatalogEntry):
    """All files, assets and recipes that `clipbert download` knows."""

    files: dict[FileId, FileEntry]
    assets: dict[Name, Asset]
    recipes: dict[str, list[str]] = Field(description="recipe name or pattern -> assets or parts it needs")

    @model_validator(mode="after")
    def _references(self) -> Catalog:
        wrong: list[str] = []
        for name, part in self.parts().items():
            for file in (*part.files, *part.optional):
                if file not in self.files:
                    wrong.append(f"assets.{name}: file {file!r} is not under files")
                elif part.kind == "media" and not archive_kind(file):
                    wrong.append(f"assets.{name}: {file!r} of a media part must be a .zip, .tar, .tar.gz or .tgz")
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

    def parts(self) -> dict[str, AssetPart]:
        """Return all parts by their full name, `asset/part`, in the order of the catalogue."""
        return {f"{name}/{key}": part for name, asset in self.assets.items() for key, part in asset.parts.items()}

    def asset_of(self, part: str) -> Asset:
        """Return the asset that a part belongs to."""
        return self.assets[part.split("/")[0]]

    def needs_of(self, recipe: str) -> list[str] | None:
        """Return the assets and parts that a recipe needs, None for an unknown recipe.

        An entry with the recipe's exact name comes before one whose pattern matches it.
        """
        if recipe in self.recipes:
            return self.recipes[recipe]
        return next((needs for name, needs in self.recipes.items() if fnmatch.fnmatchcase(recipe, name)), None)

    def select(self, names: list[str], *, only: PartKind | None = None) -> dict[str, AssetPart]:
        """Return the parts that are meant by `names` of assets, parts and recipes, in the order of the catalogue.

        A name that is both an asset and a recipe means both (`vqa`).

        Raises:
            UsageError: an unknown name, or a kind that none of the parts has.
        """
        wanted: set[str] = set()
        parts = self.parts()
        for name in names:
            needs = self.needs_of(name)
            if needs is None and name not in self.assets and name not in parts:
                known = [*self.assets, *(recipe for recipe in self.recipes if "*" not in recipe), *parts]
                raise UsageError(
                    f"{name!r} is not an asset, a part or a recipe{did_you_mean(name, known, most=3)}",
                    hint="list all names with: clipbert assets ls; a folder is named with --to, and a model of the "
                    "Hugging Face Hub as hf:ORG/NAME",
                )
            for needed in [name, *(needs or [])]:
                wanted |= {full for full in parts if full == needed or full.startswith(f"{needed}/")}
        chosen = {full: part for full, part in parts.items() if full in wanted and only in (None, part.kind)}
        if wanted and not chosen:
            raise UsageError(
                f"--only {only}: {', '.join(names)} has no part of this kind",
                hint=f"the kinds of its parts are {', '.join(sorted({parts[full].kind for full in wanted}))}",
            )
        return chosen


def load_catalog(extra: Path | None = None) -> Catalog:
    """Return the shipped catalogue, with the file `extra` laid over it.

    An entry of `extra` changes the fields that it names and keeps all others, so that a laboratory with a mirror needs
    no more than `files: {coco/train2014.zip: {sources: ["http://..."]}}`.

    Raises:
        CatalogError: all mistakes at once, each with its place.
    """
    document = _shipped()
    where = "catalog.yaml"
    if extra is not None:
        where = str(extra)
        try:
            document = _laid_over(document, _parse(read_text(extra, limit=MAX_BYTES), where))
        except (FileNotFoundError, UnreadableError) as exc:
            reason = exc if isinstance(exc, UnreadableError) else f"{extra}: no such file"
            raise CatalogError(f"--catalog {reason}", hint="name a YAML file that can be read") from exc
    try:
        return Catalog.model_validate(document)
    except ValidationError as exc:
        lines = []
        for mistake in exc.errors(include_url=False):
            # pydantic calls a wrong key "[key]", behind the key itself.
            place = ".".join(str(key) for key in mistake["loc"] if key != "[key]")
            message = mistake["msg"].removeprefix("Value error, ")
            lines.append(f"{where}: {place + ': ' if place else ''}{message}")
        raise CatalogError(listed(lines), hint="compare with the shipped catalog.yaml") from None


@cache
def _shipped() -> dict[str, Any]:
    text = resources.files("clipbert_cli.assets").joinpath("catalog.yaml").read_text(encoding="utf-8")
    return _parse(text, "catalog.yaml")


def _parse(text: str, where: str) -> dict[str, Any]:
    mistakes: list[Mistake] = []
    try:
        document = nested(read_yaml(text, where, mistakes))
    except RecipeError as exc:
        raise CatalogError(exc.lines, hint="correct the file at that place") from exc
    if mistakes:
        raise CatalogError(listed([str(mistake) for mistake in mistakes]), hint="correct the file at that place")
    if not isinstance(document, dict):
        found = excerpt(repr(document))
        raise CatalogError(f"{where}: a mapping with files, assets or recipes was expected, not {found}")
    return document


def _laid_over(base: Any, extra: Any) -> Any:
    """Return `base` with `extra` over it: mappings are merged key by key, anything else is replaced."""
    if not (isinstance(base, dict) and isinstance(extra, dict)):
        return extra
    return {**base, **{key: _laid_over(base.get(key), value) for key, value in extra.items()}}

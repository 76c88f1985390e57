"""The site: one party's own business, which no other party sees."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field, field_validator

from vfl.config.job import Document
from vfl.config.prepare import PrepareEntry


class TableEntry(Document):
    """Says where this party's rows are and which columns it brings."""

    source: str
    """A .csv, .tsv or .parquet file, relative to the site file, `builtin:NAME` or `dataset:NAME/PARTY`."""
    id: str = "id"
    columns: list[str] = Field(default_factory=list)
    """Names or patterns (`mean *`) of numeric columns; `!pattern` leaves out. Never the id or the label."""
    categorical: list[str] = Field(default_factory=list)
    dates: list[str] = Field(default_factory=list)
    date_format: str | None = None
    """How dates that are text are written, as for `strptime`; by default as ISO 8601 has it."""
    missing: list[str] = Field(default_factory=list)
    """Texts that mean that a value is missing, beside those that always do."""
    overlap: Annotated[float, Field(gt=0, le=1)] | None = None
    """For `dataset:NAME/PARTY`: the share of its people whom every party is to hold."""

    @field_validator("date_format")
    @classmethod
    def _is_a_format(cls, form: str | None) -> str | None:
        if form is not None and "%" not in form:
            raise ValueError('write it as strptime does, such as "%d/%m/%Y"')
        return form

    @property
    def has_features(self) -> bool:
        """Whether any column is asked for beside the id and the label."""
        return bool(self.columns or self.categorical or self.dates)


def is_file(source: str) -> bool:
    """Tells whether a source is a file's path."""
    return not source.startswith(("builtin:", "dataset:"))


class LabelEntry(Document):
    """Says which column holds the label, at the party that has it."""

    column: str
    positive: str | None = None
    """In a binary task, the class that counts as 1; by default the later one in sorted order."""


class RatingsEntry(Document):
    """Says where a participant's ratings are, a row each."""

    source: str
    """As for a table; or a `.dat` file, whose columns are called "1", "2" and so on."""
    user: str = "user"
    item: str = "item"
    rating: str = "rating"
    time: str | None = None
    """The column of times, numbers or dates, for a split that goes by them."""
    stand_in: str | None = None
    """For `dataset:NAME/PART` that can neither be found nor downloaded: what to take instead, said loudly."""


class CatalogueEntry(Document):
    """Says where the items are that can be rated, a row each."""

    source: str
    item: str = "item"
    title: str | None = None
    features: list[str] = Field(default_factory=list)
    """Columns that say something of an item: numbers, or categories between separators."""
    separator: Annotated[str, Field(min_length=1)] = "|"
    stand_in: str | None = None
    """As for ratings."""


class LogEntry(Document):
    """Says what else to write beside the run folder's own files."""

    tensorboard: bool = False


class Site(Document):
    """Is one party's own document."""

    party: str
    table: TableEntry | None = None
    """This party's rows; a coordinator has none."""
    ratings: RatingsEntry | None = None
    """A participant's ratings, in a recommendation."""
    catalogue: CatalogueEntry | None = None
    """What a participant knows of the items: where each has users of its own, the same at all of them."""
    prepare: PrepareEntry = PrepareEntry()
    label: LabelEntry | None = None
    bottom: dict[str, Any] | None = None
    """The network over this party's own columns: a preset with sizes, or a module of its own."""
    trunk: dict[str, Any] | None = None
    """The network behind the cut: at the label party up to the prediction, or at the coordinator."""
    head: dict[str, Any] | None = None
    """At the label party of a job with a coordinator, the network from its trunk to the prediction."""
    optimizer: dict[str, Any] | None = None
    schedule: dict[str, Any] | None = None
    seed: Annotated[int, Field(ge=0, lt=2**63)] | None = None
    """What this party's own initial weights and dropout follow from, for nobody else to know. By default the
    job's where all parties run here, and a secret one where each runs on its own host."""
    device: str = "cpu"
    threads: Annotated[int, Field(ge=1)] | None = None
    secret_key: str | None = None
    """This party's secret key file, relative to the site file."""
    bind: str | None = None
    """At the party that the others connect to: the address to listen on, if not the job's."""
    connect: str | None = None
    """At any other party: where to reach that one from here, if not at the job's address."""
    insecure: bool = False
    """Allows clear text beyond this machine; for tests inside a closed network only."""
    out: str = "runs"
    log: LogEntry = LogEntry()

    @property
    def rows(self) -> TableEntry:
        """The table of a party that has one."""
        assert self.table is not None  # noqa: S101 - checked with the assembly
        return self.table

    @property
    def has_features(self) -> bool:
        """Whether this party brings columns of its own."""
        return self.table is not None and self.table.has_features

"""The tables of `review.sqlite`."""

from __future__ import annotations

from sqlalchemy import Column, Float, Index, Integer, LargeBinary, MetaData, Table, Text

FILE = "review.sqlite"
VERSION = 1
TABLES = MetaData()

META = Table("meta", TABLES, Column("name", Text, primary_key=True), Column("value", Text, nullable=False))
ITEM = Table(
    "item",
    TABLES,
    Column("id", Integer, primary_key=True),
    Column("hash", LargeBinary, nullable=False, unique=True),
    Column("form", Text, nullable=False),
    Column("content", Text, nullable=False),
    Column("kind", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("position", Float, nullable=False),
    Column("created", Float, nullable=False),
    Column("answered", Float),
    Column("prediction", Integer),
    Column("request", Text),
    Column("place", Integer),
    Column("generation", Integer),
    Column("task", Text),
    Column("label", Text),
    Column("score", Float),
    Column("confidence", Float),
    Column("decision", Text),
    Column("reports", Integer, nullable=False, default=0),
    Column("suggested", Text),
    Column("note", Text, nullable=False, default=""),
    Column("reported_by", Text, nullable=False, default=""),
    Column("needed", Integer, nullable=False, default=1),
    Column("contested", Integer, nullable=False, default=0),
    Column("right", Text),
    Column("outcome", Text),
    Column("claimed_by", Text),
    Column("claimed_at", Float),
    Column("claimed_until", Float),
    Column("token", Text),
    Column("into_task", Text),
    Column("learned", Integer),
    Index("item_state", "state", "position", "id"),
    Index("item_claimed", "claimed_by"),
    sqlite_autoincrement=True,
)
VERDICT = Table(
    "verdict",
    TABLES,
    Column("id", Integer, primary_key=True),
    Column("item", Integer, nullable=False),
    Column("reviewer", Text, nullable=False),
    Column("time", Float, nullable=False),
    Column("seconds", Float, nullable=False),
    Column("verdict", Text, nullable=False),
    Column("label", Text),
    Column("task", Text),
    Column("note", Text, nullable=False),
    Index("verdict_item", "item", "reviewer"),
    Index("verdict_reviewer", "reviewer", "id"),
    sqlite_autoincrement=True,
)
WORK = Table(
    "work",
    TABLES,
    Column("id", Integer, primary_key=True),
    Column("reviewer", Text, nullable=False),
    Column("task", Text),
    Column("seconds", Float, nullable=False),
    Column("booked", Integer, nullable=False, default=0),
    Index("work_booked", "booked"),
)
"""Time that was taken; it remains if a verdict is undone or its item is deleted."""
BATCH = Table(
    "batch",
    TABLES,
    Column("id", Integer, primary_key=True),
    Column("time", Float, nullable=False),
    Column("last", Integer, nullable=False),
    Column("since", Float, nullable=False),
    Column("until", Float, nullable=False),
    Column("below", Float, nullable=False),
)
STRATUM = Table(
    "stratum",
    TABLES,
    Column("batch", Integer, primary_key=True),
    Column("name", Text, primary_key=True),
    Column("size", Integer, nullable=False),
)
DRAW = Table(
    "draw",
    TABLES,
    Column("batch", Integer, primary_key=True),
    Column("kind", Text, primary_key=True),
    Column("position", Integer, primary_key=True),
    Column("stratum", Text, nullable=False),
    Column("item", Integer),
    Column("prediction", Integer),
    Column("label", Text),
    Column("decision", Text),
    Column("right", Integer),
    Index("draw_item", "item"),
)
"""What was drawn, in a random order; `item` is null once the item is deleted, `right` until somebody has answered."""

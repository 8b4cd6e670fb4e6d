"""A server around a shared file, for the tests of what it is made of."""

from pathlib import Path

from paygate.files.text_records import ChangingColumns, Column, FieldProblem, Layout, LineProblem, SharedFile

LAYOUT = Layout(
    "PaymentTokensData.txt",
    "Payment tokens.",
    (
        Column("id", 12, "transaction ID"),
        Column("passcode", 10, "secret", secret=True),
        Column("amount", 10, "whole number", align="right"),
        Column("state", 8, "unpaid or paid"),
    ),
    required_count=3,
)
STATE = ChangingColumns(LAYOUT, "state")


class Server:
    """Does with a SharedFile what a real server does: a dict is its database, and it outlives a crash."""

    passes_over_known = False
    """Whether a start compares the rows before it polls, as real servers do; else it reads and rewrites all."""

    def __init__(self, directory: Path, db: dict[str, list[str]]) -> None:
        self.db = db
        self.problems: list[LineProblem] = []
        self.file = SharedFile(directory, LAYOUT)
        if self.passes_over_known:
            self.file.pass_over_known(db.values())

    def tick(self) -> None:
        news = self.file.poll()
        self.problems += news.problems
        taken = []
        for line in news.lines:
            try:
                fields = LAYOUT.parse(line.raw)
                if not fields[2].isdigit():
                    raise FieldProblem("amount", "a whole number", fields[2])
            except FieldProblem as bad:
                self.problems.append(LAYOUT.problem(line.number, bad))
                continue
            known = fields[0] in self.db
            row = self.db.setdefault(fields[0], [fields[0], "*", fields[2], "unpaid"])
            taken.append((line, None if known else row))
        if not self.file.take_in_all(taken):
            self.file.rewrite(self.db.values())

    def pay(self, *keys: str) -> None:
        for key in keys:
            self.db[key][3] = "paid"
        if not self.file.update(STATE, {key: ["paid"] for key in keys}):
            self.file.rewrite(self.db.values())

    def ticks(self, count: int) -> None:
        for _ in range(count):
            self.tick()

    def expect_in_order(self) -> None:
        """The file shows the database, each record once."""
        records = []
        for line in self.file.path.read_bytes().splitlines():
            if line.strip() and not line.startswith(b"#"):
                fields = LAYOUT.parse(line)
                if fields[0] in self.db:
                    records.append(list(fields))
        assert sorted(records) == sorted(self.db.values())


def add(server: Server, text: str) -> None:
    with server.file.path.open("a") as file:
        file.write(text)


def text_of(server: Server) -> str:
    return server.file.path.read_text()


class Crash(BaseException):
    """The process ends here."""

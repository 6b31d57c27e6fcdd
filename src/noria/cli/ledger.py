"""`noria ledger verify`."""

from noria.cli.options import DEFAULT, Options

__all__ = ["verify"]


def verify(*, head: str | None = None, options: Options = DEFAULT) -> int:
    """Prove that no record was changed: the chain of events, and each row of runs, versions, edges, pointers.

    Ends with 7 if anything was changed. A tail that was cut off shows only against a head from before.

    Parameters
    ----------
    head
        A head that an earlier verification gave and that was kept elsewhere: it has to be in the chain still.
    """
    from noria.cli import screen
    from noria.errors import LedgerCorrupt

    with options.open() as project:
        found = project.ledger.verify(head=head)
    if options.json:
        screen.json(found)
    elif found.ok:
        screen.line(f"All {found.events:,} events and {found.rows:,} rows are as they were recorded.")
        screen.facts({"head": found.head})
        if head is None:
            proof = "`noria ledger verify --head HEAD` then proves that nothing was cut off its end"
            screen.line(f"Keep the head elsewhere: {proof}.")
    else:
        screen.line("The record was changed outside of noria:", style="bold")
        for problem in found.problems:
            screen.line(f"  {problem}")
    return 0 if found.ok else LedgerCorrupt.exit_code

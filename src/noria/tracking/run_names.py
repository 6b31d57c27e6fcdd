"""Names for runs that were given none: two words and a number, easily told apart and said aloud."""

import secrets

__all__ = ["random_run_name"]

_KINDS = (  # noqa: SIM905 - as a list it takes a page
    "amber ancient azure brisk calm clear clever copper coral crisp deep distant early eager fair fleet "
    "gentle gilded glad grand green hidden hollow keen kind lively loyal lucid mellow merry mild misty "
    "noble patient placid proud quick quiet rapid rising rosy serene silver sleek smooth solid spry steady "
    "still stout sunny swift tidal tidy tranquil upright vivid warm wide wise young"
).split()
_THINGS = (  # noqa: SIM905
    "anchor aqueduct basin beacon bridge brook bucket canal cascade cistern cove creek current dam delta "
    "eddy estuary ferry fjord ford fountain gauge geyser glacier grotto harbour heron inlet island jetty "
    "kingfisher lagoon lake levee lock marsh meander mill mist mooring oar otter paddle pier pond pool "
    "pump quay rapid reed reservoir river rudder sluice source spring stream tarn tide torrent trout "
    "turbine vessel wake water weir well wharf wheel willow"
).split()
_NUMBERS = 1_000


def random_run_name() -> str:
    """Give a name such as `quiet-sluice-417`."""
    kind, thing = secrets.choice(_KINDS), secrets.choice(_THINGS)
    return f"{kind}-{thing}-{secrets.randbelow(_NUMBERS)}"

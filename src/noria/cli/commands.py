"""Every command: its words, where it is written, and one line about it. Importing this loads nothing else."""

import textwrap
from dataclasses import dataclass

__all__ = ["COMMANDS", "Command", "overview"]


@dataclass(frozen=True, slots=True)
class Command:
    """One command.

    Parameters
    ----------
    words
        What is typed after `noria`: `run list`.
    arguments
        What usually follows, as the overview shows it.
    target
        The function, below `noria.cli`: `module:name`.
    about
        One line.
    part
        The heading under which the overview lists it.
    """

    words: str
    arguments: str
    target: str
    about: str
    part: str

    @property
    def name(self) -> str:
        """The last word."""
        return self.words.rpartition(" ")[2]

    @property
    def noun(self) -> str | None:
        """The first of two words: `run` of `run list`."""
        return self.words.rpartition(" ")[0] or None


_SEE = "See what is there"

COMMANDS = (
    Command("demo", "[DIR]", "replay:demo", "Live through a year of real flights, loop closed.", "Begin"),
    Command("init", "DIR", "workspace:init", "Make a project that runs.", "Begin"),
    Command("doctor", "", "workspace:doctor", "Look machine and project over; say what to do.", "Begin"),
    Command("status", "", "workspace:status", "Tell where the project stands.", _SEE),
    Command("run list", "", "tracking:list_runs", "List what ran, newest first.", _SEE),
    Command("run show", "RUN", "tracking:show_run", "Show a run: inputs, outputs, metrics, cost.", _SEE),
    Command("run search", "[FILTER]", "experiments:search_runs", "Find runs of experiments.", _SEE),
    Command("run diff", "RUN RUN", "experiments:diff_runs", "Tell what two runs differ in.", _SEE),
    Command("run leaderboard", "METRIC", "run_comparing:leaderboard", "Rank what was tried.", _SEE),
    Command("run importance", "METRIC", "run_comparing:param_importance", "Which parameters matter.", _SEE),
    Command("run picture", "KIND METRIC", "run_comparing:draw_runs", "Draw runs: curves and more.", _SEE),
    Command("run watch", "RUN", "runs:watch", "Follow a run until it ends.", _SEE),
    Command("run logs", "RUN", "runs:logs", "Show what the steps of a run printed.", _SEE),
    Command("pipeline list", "", "pipelines:list_pipelines", "List pipelines and steps.", _SEE),
    Command("pipeline show", "TARGET", "pipelines:show_pipeline", "Show the steps of a pipeline.", _SEE),
    Command("stream list", "", "streams:list_streams", "List streams, and what has not landed.", _SEE),
    Command("dataset list", "", "lake:list_datasets", "List datasets: rows, freshness, owners.", _SEE),
    Command("dataset show", "NAME", "lake:show_dataset", "Show a dataset: contract, origin, readers.", _SEE),
    Command("dataset read", "NAME", "lake:read_dataset", "Read rows, also of a version or an instant.", _SEE),
    Command("dataset profile", "NAME [FILE]", "contracts:profile", "Propose a contract for rows.", _SEE),
    Command("dataset rejected", "NAME", "contracts:rejected", "Show the rows that were set aside.", _SEE),
    Command("feature list", "", "features:list_views", "List feature views and who uses them.", _SEE),
    Command("feature show", "VIEW", "features:show_view", "Show how features are made, and values.", _SEE),
    Command("feature readers", "VIEW", "feature_catalogue:readers", "Show who used a view.", _SEE),
    Command("feature get", "VIEW ENTITY", "features:get", "Get online features of entities.", _SEE),
    Command("model list", "", "registry:list_models", "List model versions and where they stand.", _SEE),
    Command("model show", "MODEL", "registry:show_model", "Show a model version and its gates.", _SEE),
    Command("model card", "MODEL", "model_cards:show_card", "Print or edit the card of a version.", _SEE),
    Command("model compare", "MODEL MODEL", "model_comparison:compare_models", "Compare two versions.", _SEE),
    Command("model explain", "MODEL", "model_explaining:explain", "Tell what inputs add to scores.", _SEE),
    Command("trial", "MODEL@ENVIRONMENT", "trials:show_trial", "Show how a trial stands.", _SEE),
    Command("light list", "", "light:list_services", "List services made of model files.", _SEE),
    Command("light log", "[NAME]", "light:show_log", "Show what such a service answered.", _SEE),
    Command("user list", "", "users:list_users", "List who may ask the control plane.", _SEE),
    Command("key list", "[ENVIRONMENT]", "keys:list_keys", "List who may ask a server.", _SEE),
    Command("backup check", "FOLDER", "moving:check_backup", "Compute the digests of backups again.", _SEE),
    Command("backup list", "FOLDER", "moving:list_backups", "List the backups in a folder.", _SEE),
    Command("table show", "NAME", "transforms:show_table", "Show a table: columns, sources, tests.", _SEE),
    Command("query", "SQL", "warehouse:query", "Answer one SELECT over every table.", _SEE),
    Command("dashboard list", "", "dashboards:list_dashboards", "List dashboards and their reports.", _SEE),
    Command("dashboard build", "[NAME]", "dashboards:build", "Build a page of charts and tables.", _SEE),
    Command("notebook", "", "notebook:notebook", "Open JupyterLab with the project at hand.", _SEE),
    Command(
        "trace", "PREDICTION_ID", "audit:trace", "Trace a prediction to its rows and its money.", "Ask why"
    ),
    Command("explain", "PREDICTION_ID", "explaining:explain", "Tell what made a score.", "Ask why"),
    Command("why", "MODEL@ENVIRONMENT", "audit:why", "Tell what put a model where it is.", "Ask why"),
    Command("feature trace", "VIEW ENTITY [AT]", "features:trace", "Trace features to rows.", "Ask why"),
    Command("feature compare", "VIEW", "features:compare", "Hold online against offline.", "Ask why"),
    Command(
        "feature verify",
        "DEPLOYMENT [ENV]",
        "feature_verifying:verify",
        "Hold served against offline.",
        "Ask why",
    ),
    Command(
        "model history", "MODEL", "model_history:show_history", "Tell where versions answered.", "Ask why"
    ),
    Command(
        "model at",
        "INSTANT MODEL@ENV",
        "model_history:show_at",
        "Tell what answered then, and who put it there.",
        "Ask why",
    ),
    Command("ledger verify", "", "ledger:verify", "Prove that no record was changed.", "Ask why"),
    Command("ingest", "DATASET [WHAT ...]", "ingesting:ingest", "Take in new files, or a database.", "Act"),
    Command("transform", "[MODEL...]", "transforms:transform", "Build the models that are stale.", "Act"),
    Command("table drop", "NAME", "transforms:drop_table", "Drop a table whose model is gone.", "Act"),
    Command("pipeline run", "TARGET", "pipelines:run_pipeline", "Run what is stale of a pipeline.", "Act"),
    Command("pipeline prune", "", "pruning:prune", "Forget kept results that no run needs.", "Act"),
    Command("stream push", "NAME FILE", "streams:push", "Append JSON lines to a stream.", "Act"),
    Command("stream consume", "NAME", "streams:consume", "Move a stream's events into its table.", "Act"),
    Command("dataset repair", "NAME", "contracts:repair", "Take in rejected rows that hold now.", "Act"),
    Command("dataset release", "NAME", "contracts:release", "Go on without a blocked batch.", "Act"),
    Command("dataset delete", "NAME WHERE", "upkeep:delete", "Delete rows; older versions keep them.", "Act"),
    Command(
        "dataset forget", "NAME COLUMN VALUE", "upkeep:forget", "Erase a subject everywhere, for good.", "Act"
    ),
    Command("dataset vacuum", "[NAME]", "upkeep:vacuum", "Remove files that no version needs.", "Act"),
    Command("feature materialize", "[VIEW]", "features:materialize", "Load views for serving.", "Act"),
    Command("feature follow", "", "feature_following:follow", "Keep online features up.", "Act"),
    Command("feature register", "[VIEW]", "feature_catalogue:register", "Record and measure views.", "Act"),
    Command("feature import-feast", "PATH", "feature_catalogue:import_feast", "Import a Feast repo.", "Act"),
    Command("import mlflow", "SOURCE", "importing:import_mlflow", "Take in an MLflow store.", "Act"),
    Command("import export", "FOLDER", "moving:import_export", "Take in an export.", "Act"),
    Command("export", "FOLDER", "moving:export", "Write runs and models as open files.", "Act"),
    Command("backup", "FOLDER", "moving:back_up", "Keep the whole project as it is now.", "Act"),
    Command("restore", "FOLDER --to DIR", "moving:restore", "Make a project of a backup.", "Act"),
    Command("run retry", "RUN", "runs:retry", "Run it again: what is left, or from a step on.", "Act"),
    Command("run cancel", "RUN", "runs:cancel", "End a run of a pipeline.", "Act"),
    Command("run sync", "[SERVER]", "run_syncing:sync", "Send what runs have logged for servers.", "Act"),
    Command("run reproduce", "RUN", "runs:reproduce", "Run it again as recorded; compare.", "Act"),
    Command("replay", "", "replay:replay", "Live through a replay that the project declares.", "Act"),
    Command("user add", "NAME", "users:add_user", "Let somebody ask the control plane.", "Act"),
    Command("user remove", "NAME", "users:remove_user", "Let somebody ask no more.", "Act"),
    Command("user token", "NAME", "users:make_token", "Make a token of a user.", "Act"),
    Command("key add", "NAME@ENV", "keys:add_key", "Make a key to ask a server by.", "Act"),
    Command("key revoke", "NAME@ENV", "keys:revoke_key", "Let a key count no more.", "Act"),
    Command("artifact prune", "", "artifacts:prune", "Remove bytes that no file is made of.", "Act"),
    Command("up", "", "up:up", "Run schedules, triggers, servers, control plane.", "Act"),
    Command("serve", "[MODEL@ENVIRONMENT]", "serving:serve", "Answer requests over HTTP.", "Act"),
    Command("light", "MODEL_FILE", "light:light", "Answer by a saved model, without a project.", "Act"),
    Command("record", "PREDICTION_ID OUTCOME", "recording:record", "Record what became of it.", "Act"),
    Command("predict", "MODEL", "predicting:predict", "Score files, a table or a query.", "Act"),
    Command("model restore", "MODEL", "model_history:restore", "Put an earlier version up again.", "Act"),
    Command("model undelete", "MODEL", "model_history:undelete", "Take back a model's deletion.", "Act"),
    Command("model alias", "MODEL ALIAS", "model_labels:alias", "Let an alias name a version.", "Act"),
    Command("model tag", "MODEL NAME VALUE", "model_labels:tag", "Set a tag of a version or a model.", "Act"),
    Command("model describe", "MODEL TEXT", "model_labels:describe", "Say what a version is.", "Act"),
    Command("deploy", "MODEL@ENVIRONMENT", "deploy:deploy", "Let a version answer, by its gate.", "Act"),
    Command("promote", "MODEL@ENVIRONMENT", "deploy:promote", "Let what is on trial answer all.", "Act"),
    Command("rollback", "MODEL@ENVIRONMENT", "deploy:rollback", "Go back to the last stable route.", "Act"),
)

_HEAD = """\
noria: the whole MLOps loop in one library.

Usage: noria COMMAND [ARGUMENTS] [OPTIONS]
"""
_TAIL = """\
Every command takes
  --project DIR  the project's folder; default: the current one, or one above it
  --json         the answer as JSON (demo and replay: --json FILE)
  --debug        where an error came from
  --help         what else it takes

Begin with `noria demo`, or with `noria init DIR`.
"""
_COLUMN = 28


def overview() -> str:
    """Give the screen of `noria --help`."""
    parts = dict.fromkeys(each.part for each in COMMANDS)
    blocks = [_HEAD]
    for part in parts:
        lines = [_line(each) for each in COMMANDS if each.part == part]
        blocks.append("\n".join([part, *lines]) + "\n")
    return "\n".join([*blocks, _TAIL])


def _line(command: Command) -> str:
    typed = f"  {command.words} {command.arguments}".rstrip()
    about = textwrap.wrap(command.about, 80 - _COLUMN - 2)
    first, *more = about if len(typed) <= _COLUMN else ["", *about]
    lines = [f"{typed:<{_COLUMN}}  {first}".rstrip(), *(" " * (_COLUMN + 2) + each for each in more)]
    return "\n".join(lines)

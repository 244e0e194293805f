"""The one table of activities: name, input, result, timeout policy and the line that Temporal's UI shows.

Workflows call an activity by its contract (`workflows/runtime/steps.py`), the worker registers the implementations and
compares their signatures with it (`activities/registry.py`), and the test doubles are made from it. Imported inside the
workflow sandbox, so it imports only the standard library and `model`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum, auto
from typing import Any, Generic, Protocol, TypeVar

from model.facts import Backup, CoreFacts, DatabaseFingerprint, DumpFacts, ServerFacts
from model.fleet.discovery import AgentOnHost, CoreServers, FindAgent, ListServers
from model.fleet.spec import Timing
from model.fleet.windows import FindWindows, Windows
from model.run_folders import Cleaned, CleanHost, HostFolders, ScanHost
from model.status import SaveReport
from model.steps import (
    AutoRollback,
    CheckRollback,
    ConnectServer,
    CoreKey,
    CoreStarted,
    CoreStep,
    Done,
    DumpDatabase,
    DumpStep,
    FingerprintDatabase,
    Notice,
    PostChecks,
    Proof,
    ReadCoreKey,
    Recheck,
    RecheckServer,
    ReleaseHosts,
    Restored,
    ReturnToNewCore,
    SavedServerStep,
    ServerStep,
    StagedAgent,
    StagedCore,
    SurveyCore,
    SurveyServer,
    Switched,
    SwitchServer,
    VerifyServer,
    WriteCoreFiles,
)
from model.watch import SaveWatch, WatchCheck, WatchStep


class Message(Protocol):
    """Input of an activity: contains how long a step of its fleet may take."""

    @property
    def timing(self) -> Timing: ...  # noqa: D102 - see the class


InputT = TypeVar("InputT", bound=Message)
ResultT = TypeVar("ResultT")


class Policy(StrEnum):
    """Which timeouts and retries an activity gets; `workflows/runtime/steps.py` has the durations and reasons."""

    RECHECK = auto()
    """Short reads."""
    CHECK = auto()
    """Reads that may take long."""
    SURVEY = auto()
    """The first read of a host."""
    CHANGE = auto()
    """Changes that do not wait for anything."""
    STAGE = auto()
    """Downloads."""
    DUMP = auto()
    """Dumps and restores of the database."""
    START_CORE = auto()
    """Starts Core, or waits for it."""
    SWITCH = auto()
    """Switches one agent."""
    VERIFY = auto()
    """Polls Core until it confirms a server."""
    UNDO = auto()
    """Restores what was there before."""
    UNDO_WITH_DUMP = auto()
    """The same, with a restore of the database."""
    NOTICE = auto()
    """Messages to people."""


@dataclass(frozen=True, slots=True)
class Contract(Generic[InputT, ResultT]):
    """One activity."""

    name: str
    input: type[InputT]
    result: type[ResultT]
    policy: Policy
    summary: str | Callable[[InputT], str]
    """For Temporal's UI; a function of the input where it names a server, a dump or a version."""

    def describe(self, message: InputT) -> str:
        """The summary of one call."""
        return self.summary if isinstance(self.summary, str) else self.summary(message)


# --- read-only --------------------------------------------------------------------------------------------------------

SURVEY_CORE = Contract("survey_core", SurveyCore, CoreFacts, Policy.SURVEY, "survey Core")
SURVEY_SERVER = Contract("survey_server", SurveyServer, ServerFacts, Policy.SURVEY, lambda m: f"survey {m.server.name}")
RECHECK_CORE = Contract("recheck_core", CoreStep, Recheck, Policy.RECHECK, "is Core still as planned?")
RECHECK_SERVER = Contract(
    "recheck_server", RecheckServer, Recheck, Policy.RECHECK, lambda m: f"is {m.server.name} still as planned?"
)
CHECK_ROLLBACK = Contract("check_rollback", CheckRollback, Recheck, Policy.CHECK, "can Core be rolled back?")
CHECK_SERVER_ROLLBACK = Contract(
    "check_server_rollback", SavedServerStep, Recheck, Policy.RECHECK, lambda m: f"can {m.server.name} be rolled back?"
)
POST_CHECKS = Contract("post_checks", CoreStep, PostChecks, Policy.CHECK, "post-upgrade checks")
WATCH_FLEET = Contract("watch_fleet", WatchStep, WatchCheck, Policy.CHECK, "check the upgraded fleet")
LIST_SERVERS = Contract(
    "list_servers", ListServers, CoreServers, Policy.SURVEY, lambda m: f"list Core's servers from its {m.source}"
)
FIND_AGENT = Contract(
    "find_agent", FindAgent, AgentOnHost, Policy.SURVEY, lambda m: f"find the agent of {m.server.name}"
)

# --- Core -------------------------------------------------------------------------------------------------------------

BACK_UP_CORE = Contract("back_up_core", CoreStep, Backup, Policy.CHANGE, "back up Core's files")
DUMP_DATABASE = Contract(
    "dump_database", DumpDatabase, DumpFacts, Policy.DUMP, lambda m: f"dump the database: {m.label}"
)
PROVE_DUMP = Contract("prove_dump", DumpStep, DumpFacts, Policy.DUMP, lambda m: f"prove the dump: {m.dump.label}")
FINGERPRINT_DATABASE = Contract(
    "fingerprint_database",
    FingerprintDatabase,
    DatabaseFingerprint,
    Policy.DUMP,
    lambda m: f"fingerprint the database {m.moment}",
)
STAGE_CORE = Contract("stage_core", CoreStep, StagedCore, Policy.STAGE, "pull Core's new image")
STAGE_CORE_KEY = Contract("stage_core_key", CoreStep, CoreKey, Policy.CHANGE, "create Core's key pair in advance")
STOP_CORE = Contract("stop_core", CoreStep, Done, Policy.CHANGE, "stop Core")
WRITE_CORE_FILES = Contract(
    "write_core_files", WriteCoreFiles, Done, Policy.CHANGE, "write Core's compose and env files"
)
START_CORE = Contract(
    "start_core", CoreStep, CoreStarted, Policy.START_CORE, lambda m: f"start Core {m.fleet.target} and wait for it"
)
READ_CORE_KEY = Contract("read_core_key", ReadCoreKey, CoreKey, Policy.START_CORE, "read Core's public key")

# --- Core, rollback ---------------------------------------------------------------------------------------------------

RESTORE_DATABASE = Contract("restore_database", DumpStep, Done, Policy.DUMP, "restore the database")
DOWNGRADE_DATABASE = Contract("downgrade_database", CoreStep, Done, Policy.DUMP, "downgrade the database to v1")
RESTORE_CORE_FILES = Contract("restore_core_files", CoreStep, Done, Policy.UNDO, "restore Core's files")
START_OLD_CORE = Contract("start_old_core", CoreStep, CoreStarted, Policy.START_CORE, "start the old Core")
RETURN_TO_NEW_CORE = Contract(
    "return_to_new_core", ReturnToNewCore, CoreStarted, Policy.UNDO_WITH_DUMP, "start the new Core again"
)

# --- servers ----------------------------------------------------------------------------------------------------------

BACK_UP_SERVER = Contract("back_up_server", ServerStep, Backup, Policy.CHANGE, lambda m: f"back up {m.server.name}")
STAGE_SERVER = Contract(
    "stage_server", ServerStep, StagedAgent, Policy.STAGE, lambda m: f"stage the agent for {m.server.name}"
)
SWITCH_SERVER = Contract("switch_server", SwitchServer, Switched, Policy.SWITCH, lambda m: f"switch {m.server.name}")
VERIFY_SERVER = Contract(
    "verify_server", VerifyServer, Proof, Policy.VERIFY, lambda m: f"does Core see {m.server.name}?"
)
CONNECT_SERVER = Contract(
    "connect_server", ConnectServer, Switched, Policy.SWITCH, lambda m: f"connect {m.server.name} to Core"
)
DISCONNECT_SERVER = Contract(
    "disconnect_server", ConnectServer, Done, Policy.UNDO, lambda m: f"let Core connect to {m.server.name} again"
)
CHECK_AUTO_ROLLBACK = Contract(
    "check_auto_rollback",
    SavedServerStep,
    AutoRollback,
    Policy.RECHECK,
    lambda m: f"did {m.server.name} roll back automatically?",
)
DISARM_AUTO_ROLLBACK = Contract(
    "disarm_auto_rollback",
    SavedServerStep,
    AutoRollback,
    Policy.CHANGE,
    lambda m: f"disarm the automatic rollback of {m.server.name}",
)
RESTORE_SERVER = Contract(
    "restore_server", SavedServerStep, Restored, Policy.UNDO, lambda m: f"restore {m.server.name}"
)

# --- the fleet --------------------------------------------------------------------------------------------------------

RELEASE_HOST = Contract("release_host", ReleaseHosts, Done, Policy.CHANGE, lambda m: f"release {m.op.target}")
SCAN_RUN_FOLDERS = Contract(
    "scan_run_folders",
    ScanHost,
    HostFolders,
    Policy.CHECK,
    lambda m: f"read the run folders of {m.server.name if m.server else 'Core'}",
)
CLEAN_HOST = Contract(
    "clean_host", CleanHost, Cleaned, Policy.CHANGE, lambda m: f"remove run folders of {m.unwanted.name}"
)
SAVE_REPORT_PAGE = Contract(
    "save_report_page", SaveReport, Done, Policy.CHANGE, lambda m: f"save page {m.number} of {m.pages} of the report"
)
SAVE_REPORT = Contract("save_report", SaveReport, Done, Policy.CHANGE, "save the report")
SAVE_WATCH = Contract("save_watch", SaveWatch, Done, Policy.CHANGE, "save the findings of the watch")
FIND_WINDOWS = Contract("find_windows", FindWindows, Windows, Policy.RECHECK, "when are the maintenance windows?")
NOTIFY = Contract("notify", Notice, Done, Policy.NOTICE, lambda m: m.subject)

TABLE: tuple[Contract[Any, Any], ...] = tuple(c for c in tuple(globals().values()) if isinstance(c, Contract))
"""All of the above."""

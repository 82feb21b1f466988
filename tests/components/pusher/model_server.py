"""A model of stock TF Serving: what it does with the files in a serving folder, second by second.

Each rule names its function in the branch r2.20 of tensorflow/serving; r2.19 and the main branch have the same rules.
"""

import dataclasses
import os
import pathlib
import re
from collections import Counter

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, text_format
from google.protobuf import wrappers_pb2 as _wrappers  # BatchingParameters uses its messages

from seq2serve.models.runtime.server_config import model_server_config_pb2

LOAD_SECONDS, CONFIG_POLL_SECONDS = 3, 5  # how long a model takes to load; --model_config_file_poll_wait_seconds
MAX_RETRIES, RETRY_SECONDS = 5, 60  # model_servers/server.h, Options: max_num_load_retries, load_retry_interval_micros
MAX_ACTIONS = 10  # a second; aspired_versions_manager.h: manage_state_interval_micros is 100 ms
MODEL_FILES = ("saved_model.pb", "variables/variables.index")


class RefusedError(Exception):
    """The server does not accept a configuration or a request."""


@dataclasses.dataclass
class Servable:
    """A version that the server manages (core/loader_harness.cc)."""

    number: int
    folder: pathlib.Path
    state: str = "new"  # then "loading", and "ready" or "error"
    aspired: bool = True
    failures: int = 0
    seconds: int = 0  # until the load, or the wait for a retry, ends
    content: str = ""


class ModelServer:
    """A server that runs on one serving folder; `tick` lets a second pass.

    Args:
        folder: the serving folder.
        root: the base_path under which the server finds the folder.
        allow_unavailable: --allow_version_labels_for_unavailable_models.
        load_threads: --num_load_threads, as in compose.yaml. With 0, the server's default, the manager itself loads.
    Raises:
        RefusedError: the server does not start.
    """

    def __init__(
        self, folder: pathlib.Path, root: str = "/serving", allow_unavailable: bool = True, load_threads: int = 2
    ):
        self.folder, self.root, self.allow_unavailable = folder, root, allow_unavailable
        self.load_threads = load_threads
        self.clock, self.refusals = 0, []
        self.config = self.source = None
        self.labels: dict[str, int] = {}
        self.servables: dict[int, Servable] = {}
        self.pending: dict[int, pathlib.Path] | None = None
        self.reload_config(self._read_config())
        while not self.available:  # ServerCore::ConnectAdaptersToManagerAndAwaitModelLoads
            self.tick()
            if any(servable.state == "error" for servable in self.servables.values()):
                raise RefusedError("servable(s) did not become available")
            if self.clock > 1000:
                raise RefusedError("the server waits for a version")

    @property
    def available(self) -> list[int]:
        """Returns the numbers of the versions that answer requests."""
        return sorted(servable.number for servable in self.servables.values() if servable.state == "ready")

    def answer(self, version: int | None = None, label: str = "") -> str:
        """Returns the content of the version that answers a request (ServerCore::ServableRequestFromModelSpec)."""
        if label:
            if label not in self.labels:  # ServerCore::GetModelVersionForLabel
                raise RefusedError(f"Unrecognized servable version label: {label}")
            version = self.labels[label]
        number = max(self.available, default=0) if version is None else version
        if number not in self.available:
            raise RefusedError(f"Servable not found for request: {number}")
        return self.servables[number].content

    def tick(self) -> None:
        """Lets a second pass."""
        self.clock += 1
        if (
            self.clock % CONFIG_POLL_SECONDS == 0
        ):  # Server::PollFilesystemAndReloadConfig: an error changes nothing else
            try:
                self.reload_config(self._read_config())
            except RefusedError as error:
                self.refusals.append(str(error))
        self._poll_versions()
        self._load()
        for _ in range(MAX_ACTIONS):
            if (self._num_loading and not self.load_threads) or not self._manage():
                break

    def settle(self) -> None:
        """Lets time pass until nothing changes; a broken version is retried for minutes."""
        quiet = 0
        while quiet <= 2 * CONFIG_POLL_SECONDS:
            before = [(servable.number, servable.state) for servable in self.servables.values()]
            self.tick()
            after = [(servable.number, servable.state) for servable in self.servables.values()]
            quiet = quiet + 1 if before == after and "loading" not in dict(after).values() else 0

    def reload_config(self, text: str) -> None:
        """Takes over a configuration (ServerCore::ReloadConfig)."""
        config = model_server_config_pb2.ModelServerConfig()
        try:
            text_format.Parse(text, config)  # ParseProtoTextFile: unknown fields are errors
        except text_format.ParseError as error:
            raise RefusedError(f"Invalid protobuf file: {error}") from error
        if not config.WhichOneof("config") and not self.config:
            return  # "Taking no action for empty config."
        if not config.WhichOneof("config"):
            raise RefusedError("Cannot transition to requested config")
        _validate(config.model_config_list)
        _check_platforms(self.config, config)
        self.config = config  # before the labels are checked, so a refused configuration replaces the old one
        self._update_labels()
        (self.source,) = config.model_config_list.config  # AddModelsViaModelConfigList; here always one model

    def _read_config(self) -> str:
        try:
            text = (self.folder / "models.config").read_text(encoding="utf-8")
        except OSError as error:
            raise RefusedError(f"Failed to read ModelServerConfig file: {error}") from error
        if not text:  # ParseProtoTextFile maps the file into memory, which fails for an empty one
            raise RefusedError("Failed to read ModelServerConfig file: it is empty")
        return text

    def _update_labels(self) -> None:
        """ServerCore::UpdateModelVersionLabelMap: called before versions are loaded."""
        (model,) = self.config.model_config_list.config
        for label, number in model.version_labels.items():
            is_moved = label in self.labels and self.labels[label] != number
            if number not in self.available and (not self.allow_unavailable or is_moved):
                raise RefusedError(f"Request to assign label to version {number}, which is not currently available")
        self.labels = dict(model.version_labels)

    def _poll_versions(self) -> None:
        """FileSystemStoragePathSource::PollFileSystemAndInvokeCallback; file_system_poll_wait_seconds is 1."""
        if self.source.base_path != self.root or not self.folder.is_dir():
            return  # PollFileSystemForServable: "Could not find base path"; the versions stay
        # IndexChildrenByVersion: absl::SimpleAtoi; other names are ignored.
        names = {int(name): name for name in os.listdir(self.folder) if re.fullmatch(r"\s*[+-]?[0-9]+\s*", name)}
        policy = self.source.model_version_policy
        choice = policy.WhichOneof("policy_choice") or "latest"
        if choice == "latest":  # AspireLatestVersions
            numbers = sorted(names)[-max(policy.latest.num_versions, 1) :]
        elif choice == "specific":  # AspireSpecificVersions; one that is missing is only a warning
            numbers = [number for number in policy.specific.versions if number in names]
        else:  # AspireAllVersions
            numbers = sorted(names)
        self.pending = {number: self.folder / names[number] for number in numbers}  # none: all are unloaded

    def _load(self) -> None:
        """Lets a second of the loads pass, or of the waits for a retry."""
        for servable in self.servables.values():
            if servable.state != "loading":
                continue
            servable.seconds -= 1
            is_attempt = servable.seconds < LOAD_SECONDS  # else it waits for the next attempt
            content = _content(servable.folder) if is_attempt else ""
            if is_attempt and not content:  # util/retrier.cc, Retry
                servable.failures += 1
                servable.seconds = RETRY_SECONDS + LOAD_SECONDS
                servable.state = "error" if servable.failures > MAX_RETRIES else "loading"
            elif is_attempt and servable.seconds <= 0:
                servable.state, servable.content = "ready", content

    @property
    def _num_loading(self) -> int:
        return sum(servable.state == "loading" for servable in self.servables.values())

    def _manage(self) -> bool:
        """One round of AspiredVersionsManager's loop; returns whether it did something."""
        # FlushServables
        self.servables = {
            number: servable
            for number, servable in self.servables.items()
            if servable.aspired or servable.state not in ("new", "error")
        }
        # HandlePendingAspiredVersionsRequests: a version that is to be unloaded cannot be aspired before it is
        if self.pending is not None and all(
            servable.aspired or number not in self.pending for number, servable in self.servables.items()
        ):
            for servable in self.servables.values():  # ProcessAspiredVersionsRequest
                servable.aspired = servable.number in self.pending
            for number in self.pending.keys() - self.servables.keys():
                self.servables[number] = Servable(number, self.pending[number])
            self.pending = None
        return self._next_action()

    def _next_action(self) -> bool:
        """AvailabilityPreservingPolicy::GetNextAction: unloads a version only if another one serves instead of it."""
        aspired = [servable for servable in self.servables.values() if servable.aspired]
        leaving = sorted(s.number for s in self.servables.values() if not s.aspired and s.state == "ready")
        is_replaced = not aspired or any(servable.state == "ready" for servable in aspired) or len(leaving) > 1
        if leaving and is_replaced:
            del self.servables[leaving[0]]
            return True
        new = [servable for servable in aspired if servable.state == "new"]
        if new and self._num_loading < max(self.load_threads, 1):
            servable = max(new, key=lambda servable: servable.number)
            servable.state, servable.seconds = "loading", LOAD_SECONDS
            return True
        return False


def _validate(models) -> None:
    """ServerCore: ValidateModelConfigList, GetPlatform."""
    counts = Counter(model.name for model in models.config)
    for model in models.config:
        if counts[model.name] > 1:
            raise RefusedError(f"Illegal to list model {model.name} multiple times in config list")
        if not re.match(r"/|[A-Za-z][A-Za-z0-9+.]*://", model.base_path):  # UriIsRelativePath
            raise RefusedError(f"Expected an absolute path or URI; got base_path()={model.base_path}")
        if not model.model_platform:
            raise RefusedError("Illegal setting neither model_type nor model_platform")


def _check_platforms(old, new) -> None:
    """ServerCore: ValidateNoModelsChangePlatforms."""
    platforms = {model.name: model.model_platform for model in old.model_config_list.config} if old else {}
    for model in new.model_config_list.config:
        if platforms.get(model.name, model.model_platform) != model.model_platform:
            raise RefusedError(f"Illegal to change a model's platform. For model {model.name}")


def _content(folder: pathlib.Path) -> str:
    """Returns what all files of a version contain; empty if the version is incomplete."""
    try:
        (content,) = {(folder / name).read_text(encoding="utf-8") for name in MODEL_FILES}
    except (OSError, ValueError):
        return ""
    return content


class BatchingQueue:
    """The batching of a server with a batching_parameters.txt, while it is idle.

    Args:
        text: the content of the file.
    Raises:
        RefusedError: the server does not load any model with this file.
    """

    def __init__(self, text: str):
        try:
            parameters = text_format.Parse(text, _batching_parameters()())
        except text_format.ParseError as error:
            raise RefusedError(f"Invalid protobuf file: {error}") from error
        self.sizes = list(parameters.allowed_batch_sizes)
        self.max_rows = parameters.max_batch_size.value
        self.is_split = parameters.enable_large_batch_splitting.value
        # bundle_factory_util.h, GetQueueOptions
        execution = parameters.max_execution_batch_size.value or self.max_rows
        self.max_execution = execution if self.is_split else self.max_rows
        # bundle_factory_util.cc, WrapSessionForBatching
        if self.sizes and self.sizes[-1] != self.max_rows:
            raise RefusedError(f"Last entry in allowed_batch_sizes must match max_batch_size; expected {self.max_rows}")
        # tensorflow/core/kernels/batching_util/shared_batch_scheduler.h, AddQueueAfterRewritingOptions
        if self.max_rows <= 0 or parameters.max_enqueued_batches.value <= 0:
            raise RefusedError("input_batch_size_limit and max_enqueued_batches must be positive")
        if self.max_rows < self.max_execution:
            raise RefusedError("input_batch_size_limit must be greater than or equal to max_execution_batch_size")
        self.capacity = parameters.max_enqueued_batches.value * self.max_execution

    def batches(self, rows: int) -> list[int]:
        """Returns the sizes, with padding, of the batches into which a request is split.

        Raises:
            RefusedError: the request is too large.
        """
        # shared_batch_scheduler.h, ValidateBatchTaskQueueCapacity
        if rows > self.max_rows:
            raise RefusedError(f"Task size {rows} is larger than maximum input batch size {self.max_rows}")
        if self.is_split and rows > self.capacity:
            raise RefusedError("The batch scheduling queue to which this task was submitted is full")
        parts = [min(self.max_execution, rows - start) for start in range(0, rows, self.max_execution)]
        # batching_session.cc, RoundToLowestAllowedBatchSize
        return [min((size for size in self.sizes if size >= part), default=part) for part in parts]


def _batching_parameters():
    """Returns the class of tensorflow.serving.BatchingParameters; see session_bundle_config.proto."""
    integers = ("max_batch_size", "batch_timeout_micros", "max_enqueued_batches", "num_batch_threads")
    wrapped = {name: ("Int64Value", number) for number, name in enumerate(integers, 1)}
    wrapped |= {"thread_pool_name": ("StringValue", 5), "enable_large_batch_splitting": ("BoolValue", 8)}
    wrapped["max_execution_batch_size"] = ("Int64Value", 9)
    field = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(name="batching_parameters.proto", syntax="proto3", package="model_server")
    file.dependency.append(_wrappers.DESCRIPTOR.name)
    message = file.message_type.add(name="BatchingParameters")
    for name, (type_name, number) in wrapped.items():
        message.field.add(name=name, number=number, type=field.TYPE_MESSAGE, type_name=f".google.protobuf.{type_name}")
    message.field.add(name="allowed_batch_sizes", number=6, type=field.TYPE_INT64, label=field.LABEL_REPEATED)
    message.field.add(name="pad_variable_length_inputs", number=7, type=field.TYPE_BOOL)
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(_wrappers.DESCRIPTOR.serialized_pb)
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("model_server.BatchingParameters"))

"""run.json: what results were made with, so that a later run goes on with the same."""

from collections.abc import Iterator, Mapping
from typing import Any

from msgspec import Struct, structs, to_builtins

from evaluation import challenges, json_file
from evaluation.conditions import Conditions
from evaluation.errors import EvaluationError
from evaluation.store import Store


class Settings(Struct, frozen=True, forbid_unknown_fields=True):
    """What must be the same for all cases of a store.

    submission: an image's digest, or a command; source: the folder that a command runs in.
    """

    submission: str
    source: str | None
    gpu: str | None
    conditions: Conditions


def settings_of(described: Mapping[str, Any], conditions: Conditions, gpu: str | None) -> Settings:
    """Return the settings of a run; described: what its runner says."""
    submission = described.get("image_digest") or described["command"]
    return Settings(submission, described.get("source"), gpu, conditions)


def save(store: Store, settings: Settings) -> None:
    """Write run.json."""
    json_file.write(store.settings, settings)


def load(store: Store) -> Settings | None:
    """Return what an earlier run was made with; raises EvaluationError when it is damaged."""
    what, remedy = "what a run writes", "choose another --output"
    return json_file.read(store.settings, Settings, what, remedy, _upgraded)


def check(store: Store, settings: Settings, *, resume: bool) -> None:
    """See that the store is new, or that it goes on with the same settings.

    Raises EvaluationError when there are results and `resume` is not set, or when they were made
    with other settings. How the challenge ranks may be changed.
    """
    before = load(store)
    if before is None:
        return
    if not resume:
        raise EvaluationError(
            f"{store.folder}: holds an evaluation; --resume goes on with it, or choose another"
            " --output"
        )
    changed = list(_changed(to_builtins(before), to_builtins(settings)))
    if changed:
        raise EvaluationError(
            f"{store.folder}: cannot be resumed with other settings ({'; '.join(changed)}); use the"
            " same, or another --output"
        )


def _changed(before: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[str]:
    for name in sorted((before.keys() | now.keys()) - {"ranking"}):
        old, new = before.get(name), now.get(name)
        if isinstance(old, dict) and isinstance(new, dict):
            yield from _changed(old, new)
        elif old != new and isinstance(old, tuple):  # which may be long
            yield f"{name} has other values"
        elif old != new:
            yield f"{name} was {old}, is {new}"


def _upgraded(content: Any) -> Any:
    """Return settings of a version that had no challenges as they are written now."""
    if not isinstance(content, dict) or "scoring" not in content:
        return content
    try:
        limits = {name: value for name, value in content["limits"].items() if name != "profile"}
        limits["sandboxed"] = limits.pop("locked_down")
        challenge = challenges.load(content["scoring"])
        if (contract := content.get("contract", "flare")) != "flare":
            name = f"{content['scoring']} with {contract}"
            challenge = structs.replace(challenge, name=name)
        kept = {name: content[name] for name in ("submission", "source", "gpu")}
        times = {name: content[name] for name in ("timeout_s", "interval_s")}
    except (AttributeError, KeyError, TypeError, EvaluationError) as error:
        raise ValueError(error) from error
    return kept | {"conditions": {"challenge": to_builtins(challenge), "limits": limits} | times}

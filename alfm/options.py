"""What each option may be, said once: in the annotation of the class or function that takes it.

    @dataclass
    @checked
    class Mine(Strategy):
        width: Annotated[float, Gt(0), Le(10)] = 1.0
        kind: Literal["near", "far"] = "near"

`checked` holds values against annotations when the object is made or the function called, from a config or from Python,
and answers a wrong one in one sentence. pydantic does the comparing: it reads the annotations that are there anyway,
knows ranges and NaN, and converts nothing here (strict). Hydra's structured configs know neither, would repeat every
class as a schema of its own, and Python callers never pass them.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
import types
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from annotated_types import Ge, Gt, Le, Len, Lt, MinLen, Predicate

from alfm.errors import UserError, nearest_names

if TYPE_CHECKING:
    from pydantic import TypeAdapter

T = TypeVar("T", bound=Callable[..., Any])
S = TypeVar("S")


@dataclasses.dataclass(frozen=True)
class Means:
    """In an annotation: the words for what is needed, where the type does not say it."""

    words: str


Share = Annotated[float, Ge(0), Le(1)]
Fraction = Annotated[float, Gt(0), Lt(1)]
Count = Annotated[int, Ge(1), Le(10**9)]
Whole = Annotated[int, Ge(0), Le(10**9)]
Rows = Sequence[Annotated[int, Ge(0)]]
Bytes = Annotated[int, Ge(0), Le(2**62)]
Seed = Annotated[int, Ge(0), Lt(2**63), Means("a whole number that is not negative and below 2^63")]
Name = Annotated[str, MinLen(1), Means("a name")]
PathName = Annotated[Annotated[str, MinLen(1)] | Path, Means("a path")]
Side = Annotated[int, Ge(1), Le(10_000)]
"""Pixels."""
Device = Annotated[str, Means("auto, cpu, cuda, cuda:1 or mps")]
Rounds = Annotated[int, Ge(1), Le(10**6)]
Labels = Annotated[float, Gt(0), Le(10**9)]
Drop = Annotated[float, Ge(0), Lt(0.998)]
"""A drop probability: masks have steps of 1/256, and something must be kept."""
Fits = Annotated[int, Ge(1), Le(10_000)]
"""How many fits, draws or passes: each costs time, so that a slip of the keyboard is no endless run."""


class OptionError(UserError):
    """A value outside what its annotation allows. `at(path)`: the same, said of the setting that a user typed."""

    def __init__(self, owner: str, option: str, value: Any, needed: str, separator: str = " ") -> None:
        super().__init__(f"{owner}{separator if owner else ''}{option}={shown(value)}: {needed}")
        self.option, self.value, self.needed = option, value, needed

    def at(self, path: str) -> OptionError:
        return OptionError(path, self.option.rstrip("_"), self.value, self.needed, ".")


def checked(target: T) -> T:
    """Decorates a function, a class with an `__init__`, or (nearest to the class) a dataclass.

    Values that are given, and all fields of a dataclass, are held against the annotations; none is converted. What a
    dataclass inherits is checked with it, and what a checked dataclass declares is checked in its subclasses too.
    Raises OptionError at a wrong value.
    """
    if not isinstance(target, type):
        return _checked_call(target, target.__name__)
    if "__init__" in vars(target):
        target.__init__ = _checked_call(target.__init__, target.__name__)  # type: ignore[misc]
        return target
    own = getattr(target, "__post_init__", None)

    def __post_init__(self: Any) -> None:
        """Refuses wrong options."""
        known, hints = type(self).__dataclass_fields__, _hints(target)
        for field in dataclasses.fields(target):
            if field.init and known[field.name] is field:  # else a subclass has declared it anew
                check(type(self).__name__, field.name, getattr(self, field.name), hints[field.name])
        if own is not None:
            own(self)

    target.__post_init__ = __post_init__  # type: ignore[attr-defined]
    return target


def _checked_call(function: Callable[..., Any], name: str) -> Any:
    signature = inspect.signature(function)

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        try:
            given = signature.bind(*args, **kwargs).arguments
        except TypeError:
            return function(*args, **kwargs)  # raises it with the function's name
        hints = _hints(function)
        for option, value in given.items():
            if option not in hints:
                continue
            if signature.parameters[option].kind is inspect.Parameter.VAR_KEYWORD:
                extra = _hints(get_args(hints[option])[0]) if get_args(hints[option]) else {}
                for key in value:
                    if key in extra:
                        check(name, key, value[key], extra[key])
            elif signature.parameters[option].kind is not inspect.Parameter.VAR_POSITIONAL:
                check(name, option, value, hints[option])
        return function(*args, **kwargs)

    return call


def check(owner: str, option: str, value: Any, hint: Any, separator: str = " ") -> None:
    """Raises OptionError when `value` is not what `hint` allows. Arrays and their scalars count as plain numbers."""
    from pydantic import ValidationError

    plain = value.tolist() if hasattr(value, "tolist") else list(value) if isinstance(value, range) else value
    try:
        _adapter(hint).validate_python(plain)
    except ValidationError:
        names = [name for name in _choices(hint) if isinstance(name, str)]
        near = nearest_names(value, names) if isinstance(value, str) and names else ""
        raise OptionError(
            owner, option, value, near if near.startswith("did you") else f"{described(hint)} is needed", separator
        ) from None


def options_of(target: Any) -> dict[str, Any]:
    """Name -> annotation of everything that a class or function takes; `**options: Unpack[...]` are among them."""
    if isinstance(target, type) and dataclasses.is_dataclass(target):
        hints = _hints(target)
        return {field.name: hints[field.name] for field in dataclasses.fields(target) if field.init}
    function: Any = target
    if isinstance(target, type):
        function = target.__init__  # type: ignore[misc]  # asked of the class itself
    found: dict[str, Any] = {}
    for name, hint in _hints(function).items():
        if inspect.signature(function).parameters[name].kind is inspect.Parameter.VAR_KEYWORD:
            found |= _hints(get_args(hint)[0]) if get_args(hint) else {}
        else:
            found[name] = hint
    return found


def read(kind: type[S], config: Any, path: str = "") -> S:
    """A checked dataclass from the entries of a config that have its fields' names; others are left alone.

    Fields that are dataclasses themselves are read from the entry's own entries. Raises OptionError with the entry's
    name as a user types it.
    """
    given = {}
    for name, hint in options_of(kind).items():
        value = config.get(name.rstrip("_"))  # `from` is a word of Python's
        if dataclasses.is_dataclass(hint):
            if not isinstance(value, Mapping):
                needed = " and ".join(f"{inner}=..." for inner in options_of(hint))
                raise OptionError(path, name, value, f"this holds settings, give {needed}", ".")
            dotted = f"{path}.{name}" if path else name
            _known(hint, value, dotted)  # type: ignore[arg-type]
            value = read(hint, value, dotted)  # type: ignore[arg-type]
        given[name] = plain(value)
    try:
        return kind(**given)
    except OptionError as error:
        raise error.at(path) from None


def _known(kind: type, node: Mapping[Any, Any], path: str) -> None:
    """UserError for an entry of a node that means nothing; one that holds settings itself belongs to somebody else."""
    names = [name.rstrip("_") for name in options_of(kind)]
    for key in node:
        if key not in names and not isinstance(node[key], Mapping):
            raise UserError(f"There is no setting {path}.{key}: {nearest_names(str(key), names)}")


def plain(value: Any) -> Any:
    """A config's list or mapping as Python's own, with `${...}` resolved; anything else as it is."""
    from omegaconf import OmegaConf

    return OmegaConf.to_container(value, resolve=True) if OmegaConf.is_config(value) else value


def of_kind(made: Any, kind: type) -> bool:
    """Is it an instance of a class, or has it what a protocol's methods are called?"""
    if not getattr(kind, "_is_protocol", False):
        return isinstance(made, kind)
    methods = [name for name, member in vars(kind).items() if not name.startswith("_") and callable(member)]
    return not isinstance(made, type) and all(callable(getattr(made, name, None)) for name in methods)


def described(hint: Any) -> str:
    """What a value must be, in words: "a number above 0 or auto"."""
    origin, inner = get_origin(hint), get_args(hint)
    if origin is Annotated:
        for note in inner[1:]:
            if isinstance(note, Means):
                return note.words
        size = next((note for note in inner[1:] if isinstance(note, MinLen | Len)), None)
        if size is not None and inner[0] is not str:
            return described(inner[0]).replace("a list", f"a list of {_size(size)}", 1)
        return " ".join(filter(None, [described(inner[0]), _range(inner[1:])]))
    if origin in (Union, types.UnionType):
        return _either([described(one) for one in inner])
    if origin is Literal:
        return _either([shown(one) for one in inner])
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return f"a mapping whose values are each {described(inner[1])}" if inner[1] is not Any else "a mapping"
    if origin is tuple and inner[-1] is not Ellipsis:
        return f"a list of {len(inner)}, each entry {_either(list(dict.fromkeys(map(described, inner))))}"
    if isinstance(origin, type) and issubclass(origin, Sequence):
        return f"a list, each entry {described(inner[0])}"
    plain = {float: "a number", int: "a whole number", str: "a text", bool: "true or false", type(None): "null"}
    return plain.get(hint) or f"a {getattr(hint, '__name__', hint)}"


def shown(value: Any) -> str:
    """A value as a user writes it, cut where it is long."""
    text = {None: "null", True: "true", False: "false"}[value] if value is None or isinstance(value, bool) else ""
    text = text or " ".join(str(value).split())
    return text if len(text) <= 60 else f"{text[:57]}..."


# ---- reading annotations ---------------------------------------------------------------------------------------------


@functools.cache
def _hints(target: Any) -> dict[str, Any]:
    if isinstance(target, type):
        return get_type_hints(target, include_extras=True)
    function = inspect.unwrap(target)  # what it returns may be named for type checkers only
    asked = types.SimpleNamespace(__annotations__={k: v for k, v in function.__annotations__.items() if k != "return"})
    return get_type_hints(asked, function.__globals__, include_extras=True)


@functools.cache
def _adapter(hint: Any) -> TypeAdapter[Any]:
    from pydantic import ConfigDict, TypeAdapter  # a tenth of a second, which --help does not pay

    config = ConfigDict(strict=True, allow_inf_nan=False, arbitrary_types_allowed=True)
    return TypeAdapter(_instances(hint), config=config)


def _instances(hint: Any) -> Any:
    """The same without two habits of pydantic: it looks into a dataclass's fields and takes a text for a list."""
    if dataclasses.is_dataclass(hint):
        return Annotated[Any, Predicate(lambda value: isinstance(value, hint))]  # type: ignore[arg-type]
    if get_origin(hint) in (Union, types.UnionType):
        return Union[tuple(map(_instances, get_args(hint)))]  # noqa: UP007
    if get_origin(hint) is Sequence:
        return Annotated[hint, Predicate(lambda value: not isinstance(value, str | bytes))]
    return hint


def _choices(hint: Any) -> list[Any]:
    """The values that `Literal` names, anywhere in the annotation."""
    if get_origin(hint) is Literal:
        return list(get_args(hint))
    return [choice for one in get_args(hint) for choice in _choices(one)]


def _range(notes: Sequence[Any]) -> str:
    low = next((note for note in notes if isinstance(note, Ge | Gt)), None)
    high = next((note for note in notes if isinstance(note, Le | Lt)), None)
    if isinstance(low, Ge) and isinstance(high, Le):
        return f"between {_end(low.ge)} and {_end(high.le)}"
    words = []
    if low is not None:
        words.append(f"above {_end(low.gt)}" if isinstance(low, Gt) else f"of at least {_end(low.ge)}")
    if high is not None:
        words.append(f"below {_end(high.lt)}" if isinstance(high, Lt) else f"of at most {_end(high.le)}")
    return " and ".join(words)


def _size(note: MinLen | Len) -> str:
    most = getattr(note, "max_length", None)
    few = str(note.min_length)
    return f"{few} or more" if most is None else few if most == note.min_length else f"{few} to {most}"


def _end(value: Any) -> str:
    return str(value) if isinstance(value, int) else f"{value:g}".replace("e-0", "e-").replace("e+0", "e")


def _either(words: list[str]) -> str:
    return " or ".join(filter(None, [", ".join(words[:-1]), words[-1]]))

"""Help of the commands: options in groups, names and defaults at full length in any width, and examples."""

import re
from collections.abc import Callable
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

from slotssm.errors import InputError
from slotssm_cli.terminal.console import result
from slotssm_cli.terminal.examples import EXAMPLES

WORK_ORDER = (
    "generate",
    "import",
    "inspect",
    "verify",
    "export",
    "presets",
    "train",
    "sweep",
    "runs",
    "eval",
    "table",
    "predict",
    "visualize",
    "report",
    "reproduce",
    "status",
    "demo",
    "doctor",
)
"""Commands in the order of work; others follow."""
GROUPS = {
    "Convention": (
        "per_frame",
        "include_background",
        "empty",
        "skip_frames",
        "clip_len",
        "matching",
        "average",
        "absent",
        "frame_range",
        "mask_source",
        "conventions",
    ),
    "Probes": ("probe", "properties", "probe_split"),
    "Objects": ("objects", "shapes", "colors", "distinct_colors", "radius", "speed", "mass", "contact", "balls"),
    "Appearance": ("backgrounds", "textures", "lighting", "outside", "camera", "camera_speed"),
    "Splits": ("train", "val", "test", "limit"),
    "Execution": ("workers", "device", "plugin", "resume", "dry_run", "retry_failed", "verbose"),
    "Output": ("out", "force", "json", "per_episode", "help"),
}
"""Group of an option by the name of its parameter; others belong to the group `Options`."""
_TYPE = re.compile(r"<(?:list\[)?(\w+)\]?(?: range)?>")
"""The type of a value, such as `<int range>` and `<list[Path]>`, of which help shows one lower-case word."""
WIDTH = 100
"""Widest help, in characters."""


class Application(typer.Typer):
    """A `typer.Typer` whose commands have the help of this module and the option `--verbose`."""

    def __init__(self, **settings: Any) -> None:
        named = {"help_option_names": ["-h", "--help"], "max_content_width": WIDTH}
        super().__init__(**{"cls": OrderedGroup, "rich_markup_mode": None, "context_settings": named, **settings})

    def command(self, name: str | None = None, **settings: Any) -> Callable[[Any], Any]:
        """Decorate the function of a command."""
        return super().command(name, **{"cls": GroupedCommand, **settings})


class GroupedCommand(TyperCommand):
    """A command whose help lists options in groups, and ends with examples."""

    def __init__(self, *arguments: Any, **settings: Any) -> None:
        super().__init__(*arguments, **settings)
        self.params.append(_verbose_option())

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write arguments and options, group by group."""
        found: dict[str, list[tuple[str, str]]] = {"Arguments": [], "Options": [], **{name: [] for name in GROUPS}}
        for parameter in self.get_params(ctx):
            record = parameter.get_help_record(ctx)
            if record is not None:
                names, text = record
                found[group_of(parameter)].append((_TYPE.sub(lambda kind: f"<{kind[1].lower()}>", names), text))
        for name, records in found.items():
            if records:
                with formatter.section(name):
                    formatter.write_dl(records, col_max=26)

    def format_epilog(self, ctx: Any, formatter: Any) -> None:
        """Write the examples."""
        examples = EXAMPLES.get(ctx.command_path, ())
        if examples:
            with formatter.section("Examples"):
                formatter.write("".join(f"  {example}\n" for example in examples))


class OrderedGroup(TyperGroup):
    """A group of commands whose help lists them in the order of work, with all of their first lines."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse the name of the command; without one, print the help."""
        if not args and self.no_args_is_help and not ctx.resilient_parsing:
            result(ctx.get_help())
            raise typer.Exit(InputError.exit_code)
        return super().parse_args(ctx, args)

    def list_commands(self, ctx: Any) -> list[str]:
        """Names of the commands, in the order of work; placeholders, in capitals, come last."""
        places = {name: place for place, name in enumerate(WORK_ORDER)}
        names = super().list_commands(ctx)
        return sorted(names, key=lambda name: (name.isupper(), places.get(name, len(places))))

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Write the commands."""
        commands: list[tuple[str, Any]] = [(name, self.get_command(ctx, name)) for name in self.list_commands(ctx)]
        rows = [
            (name, " ".join((command.help or "").partition("\n\n")[0].split()))
            for name, command in commands
            if not command.hidden
        ]
        with formatter.section("Commands"):
            formatter.write_dl(rows)


def _verbose_option() -> Any:
    """An option that `slotssm_cli.main` looks for itself; the functions of the commands do not receive it."""
    source = typer.Typer()

    @source.command()
    def command(
        verbose: Annotated[
            bool, typer.Option("--verbose", help="Print all notes, and the traceback of an error.")
        ] = False,
    ) -> None:
        pass

    option = next(each for each in typer.main.get_command(source).params if each.name == "verbose")
    option.expose_value = False
    return option


def group_of(parameter: Any) -> str:
    """The group of an argument or option."""
    if parameter.param_type_name == "argument":
        return "Arguments"
    return next((group for group, names in GROUPS.items() if parameter.name in names), "Options")

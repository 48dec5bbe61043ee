"""The cyclopts application: verbs, their help, shell completion.

The verbs of a recipe stand here for help and completion; when they run, cli has handed their words to the recipe's loader
before this module is imported.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Annotated, Any, cast, get_args, get_origin, get_type_hints

from cyclopts import App, Group, Parameter

from fangcun import __version__, cli_chat, cli_download, cli_evaluate, cli_export, cli_import, cli_serve, cli_verbs
from fangcun.config.keys import field_docs
from fangcun.config.schema import Recipe
from fangcun.launch.options import SlurmOptions

_RECIPE_VERBS = {
    "run": "Text to model, the whole way: corpus, tokenizer, tokens, training. Stages that are done are skipped.",
    "corpus": "Read, clean and split the text of a recipe; nothing else.",
    "tokenizer": "A recipe up to its tokenizer.",
    "pack": "A recipe up to its token shards; or, with --adopt, take token files of nanoGPT's kind as they are.",
    "pretrain": "A recipe up to its trained model.",
}
_SETTINGS = """
Settings are the recipe's keys: --train.max_steps 20, --optimizer.lr 3e-4, lists as several values, null for none.
--text PATH… is short for --corpus.paths, --out DIR for --out_dir.
"""
_SHOW = """
fangcun corpus show RUN [--dropped RULE] [--count N] prints what cleaning and filters left out, by rule, with samples.
fangcun corpus report RUN [--json FILE] [--html FILE] tells what a corpus is made of.
"""
_FIT = """
fangcun tokenizer trim SOURCE --text PATH… --size N --out DIR [--model FOLDER] keeps of a large tokenizer what a text needs.
fangcun tokenizer report A B C [--text PATH…] [--width 512] sets tokenizers side by side. Each has a --help of its own.
"""
_ADOPT = """
fangcun pack --adopt train.bin val.bin --tokenizer.path PATH --out DIR [--tokens.dtype uint16] makes token shards of
finished files of ids.
"""
_MORE = {"pack": _ADOPT, "corpus": _SHOW, "tokenizer": _FIT}

Text = Annotated[
    list[str] | None,
    Parameter(
        name="--text",
        help="Files, folders or globs to train on; short for --corpus.paths.",
        negative=(),
        consume_multiple=True,
    ),
]
Out = Annotated[str | None, Parameter(name="--out", help="Run folder; short for --out_dir. Default: runs/RECIPE.")]
Yes = Annotated[
    bool,
    Parameter(
        name="--yes",
        help="Make anew what changed without a question, however long it takes. Above ten minutes it is asked otherwise.",
        negative=(),
    ),
]


def _for_help(cls: type) -> type:
    """A dataclass whose mappings are single settings: cyclopts would list what is in them."""
    hints, docs, changed = get_type_hints(cls, include_extras=True), field_docs(cls), {}
    for name, hint in hints.items():
        if dataclasses.is_dataclass(hint):
            changed[name] = (_for_help(cast(type, hint)), dataclasses.field(default_factory=cast(type, hint)))
        elif any(get_origin(part) is dict for part in get_args(hint)):
            changed[name] = (Annotated[list[str] | None, Parameter(help=docs[name])], None)
    if not changed:
        return cls
    fields = [(name, *value) for name, value in changed.items()]
    return dataclasses.make_dataclass(cls.__name__, fields, bases=(cls,), namespace={"__module__": __name__})


_Settings: Any = _for_help(Recipe)
Settings = Annotated[_Settings | None, Parameter(name="*", negative=(), name_transform=str)]
Job = Annotated[SlurmOptions | None, Parameter(name="*", negative=())]


def build_app() -> App:
    """The application with all verbs that work."""
    app = App(
        name="fangcun",
        help="Fangcun 方寸: your own text in, your own small language model out, on the machine you have.",
        help_epilogue="Start with fangcun demo, or fangcun run demo --text my-novels/ --out runs/mine.",
        version=__version__,
        help_format="plaintext",
        suppress_keyboard_interrupt=False,
    )
    app.command(_demo_help(), name="demo")
    for verb, text in _RECIPE_VERBS.items():
        app.command(_recipe_help(text + "\n" + _SETTINGS + _MORE.get(verb, "")), name=verb)
    app.command(cli_verbs.generate)
    app.command(cli_chat.chat)
    app.command(cli_evaluate.evaluate)
    app.command(cli_serve.serve)
    app.command(cli_verbs.recipes)
    app.command(cli_download.download)
    app.command(cli_import.import_path, name="import")
    app.command(cli_export.export)
    app.command(cli_export.verify)
    launch = App(name="launch", help="Submit a run to a cluster's scheduler.")
    launch.command(_slurm_help(), name="slurm")
    launch["slurm"].group_parameters = Group("Settings", sort_key=1)
    app.command(launch)
    app.register_install_completion_command()
    for verb in ("demo", *_RECIPE_VERBS):
        app[verb].group_parameters = Group("Settings", sort_key=0)
    return app


def _recipe_help(text: str) -> Callable[..., None]:
    def verb(
        recipe: str, /, *, text: Text = None, out: Out = None, yes: Yes = False, settings: Settings = None
    ) -> None:
        raise AssertionError("recipes are run by fangcun.cli")

    verb.__doc__ = f"{text}\n\nParameters\n----------\nrecipe\n    A shipped recipe's name (see fangcun recipes) or a YAML file, ours or litgpt's, or a config/*.py of nanoGPT."
    return verb


def _demo_help() -> Callable[..., None]:
    def demo(*, text: Text = None, out: Out = None, yes: Yes = False, settings: Settings = None) -> None:
        raise AssertionError("recipes are run by fangcun.cli")

    demo.__doc__ = "The shipped recipe demo on the built-in novel: about five minutes on two CPU cores.\n" + _SETTINGS
    return demo


def _slurm_help() -> Callable[..., None]:
    def slurm(
        recipe: str, /, *, job: Annotated[Job, Parameter(group=Group("Job", sort_key=0))] = None,
        text: Text = None, out: Out = None, yes: Yes = False, settings: Settings = None,
    ) -> None:  # fmt: skip
        raise AssertionError("jobs are launched by fangcun.cli")

    slurm.__doc__ = (
        "Write a job script into the run folder and submit it with sbatch. The job runs the recipe on every node, saves before "
        "its time is up or it is preempted, and goes on from there when it is queued again.\n"
        + _SETTINGS
        + "\n\nParameters\n----------\nrecipe\n    A shipped recipe's name (see fangcun recipes) or a YAML file, ours or litgpt's, or a config/*.py of nanoGPT."
    )
    return slurm

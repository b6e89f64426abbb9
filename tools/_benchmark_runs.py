"""`tools/benchmark.py study` and `table`: trained runs, as tables."""

import argparse
import json
import shlex
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import _command_line as cli

_STOPPED = (130, 143)  # exit codes after Ctrl-C and SIGTERM


def add_study(commands: Any) -> None:
    parser = commands.add_parser(
        'study',
        help='train recipes with several seeds: means with 95 %% intervals',
        description='Train and test the rows of a plan with several seeds, and write means with '
        '95 % intervals over seeds and images. What is done stays: the same command goes on after '
        'a stop. The exit code is 1 after a row that failed.',
    )
    parser.set_defaults(run=run_study)
    parser.add_argument(
        'plan',
        type=Path,
        metavar='PLAN.json',
        help=f'a list of rows, see docs/benchmark.md; {cli.TRUST}',
    )
    parser.add_argument('--rows', nargs='+', default=(), metavar='NAME', help='only these configs')
    parser.add_argument(
        '--work-dirs',
        type=Path,
        default=Path('work_dirs/study'),
        metavar='DIR',
        help='folder of the trainings (default: work_dirs/study)',
    )
    cli.add_flag(parser, '--report', 'train nothing: write what is there')
    parser.add_argument('--out', type=Path, metavar='FILE', help='write the rows as JSON')


def run_study(args: argparse.Namespace) -> int:
    from vit_backbones.benchmark.results import markdown, write_json
    from vit_backbones.benchmark.study import check_configs, finished, read_plan

    entries, chosen = read_plan(args.plan), read_plan(args.plan, args.rows)
    if not args.report:
        check_configs(chosen, args.plan)
    failed = []
    for entry in () if args.report else chosen:
        failed += run_entry(entry, args.work_dirs)
        if args.out is not None:
            write_json(args.out, rows=finished(entries, args.work_dirs))
    rows = finished(entries, args.work_dirs)
    if not rows:
        raise ValueError(f'no row of {args.plan} has a result in {args.work_dirs}')
    print(markdown(rows))
    if args.out is not None:
        write_json(args.out, rows=rows)
        print(f'wrote {args.out}')
    for line in failed:
        cli.say(line, error=True)
    return int(bool(failed))


def run_entry(entry: Any, root: Path) -> list[str]:
    """Train and test what a row lacks, each in a process of its own; gives what failed.

    A training that was stopped goes on. Tests have the config in the work dir, the last checkpoint
    and, for metrics that `BootstrapHook` knows, standard errors over images.

    Raises:
        KeyboardInterrupt: After Ctrl-C or SIGTERM, when the process has saved what it had.
    """
    from vit_backbones.benchmark.study import RECORD
    from vit_backbones.config.facts import listed, type_name
    from vit_backbones.config.loading import load_config
    from vit_backbones.training.bootstrap_hook import KNOWN
    from vit_backbones.training.last_checkpoint import find_last_checkpoint

    failed = []
    for seed in range(entry.seeds):
        folder, tested = entry.folder(root, seed), entry.tested(root, seed)
        if (tested / RECORD).exists():
            continue
        if not (folder / 'record.json').exists():
            resume = ['--resume'] if find_last_checkpoint(folder) else []
            given = [entry.config, '--work-dir', str(folder), '--seed', str(seed), *resume]
            options = [each.replace('{work_dirs}', str(root)) for each in entry.options]
            if not _ran(['train', *given, *options], failed):
                continue
        config = folder / Path(entry.config.split('::')[-1]).name
        given = [str(config), str(find_last_checkpoint(folder)), '--work-dir', str(tested)]
        metrics = listed(load_config(config).get('test_evaluator'))
        bootstrap = ['--bootstrap'] if any(type_name(each) in KNOWN for each in metrics) else []
        _ran(['test', *given, *bootstrap, *entry.test_options], failed)
    return failed


def _ran(arguments: Sequence[str], failed: list[str]) -> bool:
    command = ['python', '-m', 'vit_backbones', *arguments]
    cli.say(shlex.join(command))
    # in a group of its own, so that Ctrl-C reaches it once
    process = subprocess.Popen([sys.executable, *command[1:]], process_group=0)
    try:
        code = process.wait()
    except KeyboardInterrupt:
        process.send_signal(signal.SIGINT)
        process.wait()
        code = _STOPPED[0]
    if code in _STOPPED:
        raise KeyboardInterrupt('stopped: the same command goes on')
    if code:
        failed.append(f'{shlex.join(command)} ended with exit code {code}')
    return code == 0


def add_table(commands: Any) -> None:
    parser = commands.add_parser(
        'table',
        help='a table and a picture of runs',
        description='A table of mAP and mIoU, speed, memory and parameters from work dirs of '
        'tools/train.py and JSON files of this tool.',
    )
    parser.set_defaults(run=run_table)
    parser.add_argument(
        'runs',
        nargs='+',
        type=Path,
        metavar='WORK_DIR_OR_JSON',
        help=f'folders of tools/train.py with their configs, or results; {cli.TRUST}',
    )
    parser.add_argument('--out', type=Path, metavar='FILE', help='the table as Markdown')
    parser.add_argument('--json', type=Path, metavar='FILE', help='its rows as JSON')
    parser.add_argument('--plot', type=Path, metavar='FILE', help='a picture of value against --x')
    parser.add_argument(
        '--x',
        choices=('images_per_second', 'parameters', 'peak_memory_mib'),
        default='images_per_second',
        help='(default: images_per_second)',
    )


def run_table(args: argparse.Namespace) -> int:
    from vit_backbones.benchmark.results import markdown, ordered, read_runs
    from vit_backbones.files import check_writable, write_whole
    from vit_backbones.pictures.canvas import check_figure, figure_file
    from vit_backbones.pictures.scatter import draw_costs

    if args.json is not None:
        check_writable(args.json)
    if args.plot is not None:
        check_figure(args.plot)
    rows, left_out = read_runs(args.runs)
    for line in left_out:
        cli.say(f'left out: {line}', error=True)
    if not rows:
        raise ValueError('none of these is a work dir with a record, or a file of results')
    text = markdown(rows)
    print(text)
    contents = {
        args.plot: lambda: figure_file(draw_costs(ordered(rows), args.x), args.plot.suffix),
        args.out: lambda: f'{text}\n'.encode(),
        args.json: lambda: f'{json.dumps(ordered(rows), indent=1)}\n'.encode(),
    }
    for path, content in contents.items():
        if path is not None:
            write_whole(path, content())
            print(f'wrote {path}')
    return 0

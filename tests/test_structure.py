"""The shape of the house: what may import what, how deep and how long; read as text."""

import ast
import re
from collections import Counter, defaultdict
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
MODULES = sorted((ROOT / 'vit_backbones').rglob('*.py'))
TOOLS = sorted((ROOT / 'tools').glob('*.py'))
# From the bottom up: a room (module or folder of the package) imports only rooms of the lines above
# its own in this list, so no import points up and none runs in a circle.
ORDER = [
    {
        'bits',
        'version',
        'errors',
        'files',
        'devices',
        'position',
        'metrics',
        'shapes',
        'terminal',
        'cutouts',
    },
    {'environment', 'attention', 'checkpoints', 'images', 'pictures', 'config', 'objects'},
    {'arguments', 'loaders', 'samples', 'own_data', 'shards'},
    {'readout', 'low_rank', 'hosts', 'transforms'},
    {'necks', 'heads'},
    {'sources', 'mmdet', 'mmseg'},
    {'arch', 'lora', 'weights'},
    {'adapted'},
    {'learning'},
    {'joint_blocks'},
    {'backbone'},
    {'checks'},
    {'training', 'models'},
    {'features', 'evaluation', 'export', 'distillation'},
    {'embeddings'},
    {'benchmark'},
    {'__init__', '__main__'},
]
LEVELS = {room: level for level, rooms in enumerate(ORDER) for room in rooms}
LONGEST_RUN = 7  # equal lines that may stand in two places


def module_of(path):
    """Dotted name; a package is its `__init__`."""
    return '.'.join(path.relative_to(ROOT).with_suffix('').parts)


NAMES = {module_of(path) for path in MODULES}


def room_of(module):
    return module.split('.')[1]


def imports(path):
    """Modules of the package that a file imports, without those for type checkers."""
    tree = ast.parse(path.read_text(encoding='utf-8'))
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and 'TYPE_CHECKING' in ast.unparse(node.test):
            node.body = []
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            package = '.'.join(path.relative_to(ROOT).parts[: -node.level]) if node.level else ''
            base = '.'.join(filter(None, (package, node.module)))
            yield from (resolved(f'{base}.{each.name}') for each in node.names)
        elif isinstance(node, ast.Import):
            yield from (resolved(each.name) for each in node.names)


def resolved(name):
    """The module that holds `name`, `''` outside the package."""
    if name.split('.')[0] != 'vit_backbones':
        return ''
    parent = name.rpartition('.')[0]
    inside = [name, f'{name}.__init__', parent, f'{parent}.__init__']
    return next(each for each in inside if each in NAMES)


@cache
def graph():
    return {module_of(path): set(imports(path)) - {''} for path in MODULES}


def lengths(path):
    """Lines of each function, without its docstring."""
    for node in ast.walk(ast.parse(path.read_text(encoding='utf-8'))):
        if isinstance(node, ast.FunctionDef):
            first = node.body[0]
            told = first.end_lineno - first.lineno + 1 if ast.get_docstring(node) else 0
            yield node.end_lineno - node.lineno + 1 - told


def code(path):
    """Its lines without blank ones, comments and imports."""
    text = path.read_text(encoding='utf-8')
    left_out = {
        number
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.Import | ast.ImportFrom)
        for number in range(node.lineno, node.end_lineno + 1)
    }
    lines = [line.strip() for n, line in enumerate(text.splitlines(), 1) if n not in left_out]
    return [line for line in lines if line and not line.startswith('#')]


def test_every_room_has_its_place_in_the_order():
    assert {room_of(module_of(path)) for path in MODULES} == LEVELS.keys()


def test_imports_point_down():
    wrong = [
        f'{module} imports {other}'
        for module, others in graph().items()
        for other in sorted(others)
        if room_of(other) != room_of(module) and LEVELS[room_of(other)] >= LEVELS[room_of(module)]
    ]
    assert not wrong


def test_no_import_runs_in_a_circle():
    circle = []
    try:
        TopologicalSorter(graph()).prepare()
    except CycleError as error:
        circle = error.args[1]
    assert circle == []


def test_only_tools_import_tools():
    names = {path.stem for path in TOOLS}
    wrong = [
        module_of(path)
        for path in MODULES
        for node in ast.walk(ast.parse(path.read_text(encoding='utf-8')))
        if isinstance(node, ast.ImportFrom) and node.module in {*names, 'tools'}
    ]
    assert not wrong


def test_modules_lie_at_most_two_levels_deep():
    assert max(len(path.relative_to(ROOT).parts) for path in MODULES) == 3


def test_no_two_modules_share_a_name():
    names = Counter(path.stem for path in MODULES if path.stem != '__init__')
    assert [name for name, count in names.items() if count > 1] == []


def test_files_are_short():
    counts = {path.name: len(path.read_text(encoding='utf-8').splitlines()) for path in MODULES}
    assert max(counts.values()) <= 450
    assert len([name for name, count in counts.items() if count > 300]) <= 5


def test_functions_are_short():
    found = sorted(length for path in MODULES for length in lengths(path))
    assert found[int(0.9 * len(found))] <= 18


def test_no_run_of_lines_stands_twice():
    places = defaultdict(set)
    for path in [*MODULES, *TOOLS, ROOT / 'docs/tables.py']:
        lines = code(path)
        for start in range(len(lines) - LONGEST_RUN):
            places[tuple(lines[start : start + LONGEST_RUN + 1])].add((path.name, start))
    assert [sorted(where) for where in places.values() if len(where) > 1] == []


def nodes_of_library():
    """(module, node) of the syntax trees of all modules that no shell starts."""
    for path in MODULES:
        if path.stem != '__main__':
            for node in ast.walk(ast.parse(path.read_text(encoding='utf-8'))):
                yield module_of(path), node


def test_the_package_names_arguments_and_leaves_flags_to_the_tools():
    flags = {flag for path in TOOLS for flag in re.findall(r"'(--[a-z-]+)'", path.read_text())}
    wrong = [
        f'{module}: {node.value}'
        for module, node in nodes_of_library()
        if isinstance(node, ast.Constant)
        and flags.intersection(re.findall(r'--[a-z][a-z-]*', str(node.value)))
    ]
    assert not wrong


def test_the_package_prints_nothing():
    calls = [(module, node) for module, node in nodes_of_library() if isinstance(node, ast.Call)]
    assert [module for module, call in calls if ast.unparse(call.func) == 'print'] == []

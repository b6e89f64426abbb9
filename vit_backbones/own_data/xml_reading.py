"""XML of strangers: without entities, which can grow a small file without end."""

from pathlib import Path
from typing import NoReturn
from xml.etree.ElementTree import Element, TreeBuilder
from xml.parsers import expat

from vit_backbones.bits import check_regular


def xml_of(path: Path) -> Element:
    """The root of an XML file.

    Raises:
        ValueError: If it is none, or declares an entity.
    """
    check_regular(path)
    builder, parser = TreeBuilder(), expat.ParserCreate()
    parser.buffer_text = True
    parser.EntityDeclHandler = _refuse
    parser.StartElementHandler, parser.EndElementHandler = builder.start, builder.end
    parser.CharacterDataHandler = builder.data
    content = path.read_bytes()
    if not content.strip():
        raise ValueError(f'{str(path)!r} is empty: write its XML, or remove it and its image')
    try:
        parser.Parse(content, True)
    except expat.ExpatError as error:
        where = f'{path}:{error.lineno}'
        raise ValueError(
            f'{where!r} cannot be read as XML ({expat.ErrorString(error.code)})'
        ) from None
    except (LookupError, ValueError) as error:  # encodings, and entities
        raise ValueError(f'{str(path)!r} cannot be read as XML ({error})') from None
    return builder.close()


def _refuse(name: str, *_: object) -> NoReturn:
    raise ValueError(f'it declares the entity {name!r}, which labels have no need of: remove it')

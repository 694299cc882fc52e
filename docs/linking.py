"""Makes the names of public functions and classes links to the reference, wherever they stand as code in a page."""

from __future__ import annotations

from typing import Any

from docutils import nodes
from sphinx.addnodes import desc_signature, download_reference, pending_xref
from sphinx.application import Sphinx
from sphinx.transforms.post_transforms import SphinxPostTransform
from sphinx.util.nodes import make_refnode

KINDS = {"function", "class", "exception", "method", "property"}
# Where names stand that are links already, or are what a link would lead to.
ELSEWHERE = (nodes.reference, nodes.title, pending_xref, download_reference, desc_signature)


class LinkNames(SphinxPostTransform):
    """`certify`, `sq.certify` and `Result.save` become links; what is no public name, or several, stays as it is."""

    default_priority = 5

    def run(self, **_: Any) -> None:
        """Look at every piece of code within the text."""
        known = self.places()
        for literal in list(self.document.findall(nodes.literal)):
            name = literal.astext().removesuffix("()").removeprefix("sq.").removeprefix("sound_qkeras.")
            places = known.get(name, set())
            inside, node = False, literal.parent
            while node is not None and not inside:
                inside, node = isinstance(node, ELSEWHERE), node.parent
            if len(places) == 1 and not inside:
                page, anchor = next(iter(places))
                if page != self.env.docname:
                    link = make_refnode(self.app.builder, self.env.docname, page, anchor, literal.deepcopy(), name)
                    literal.replace_self(link)

    def places(self) -> dict[str, set[tuple[str, str]]]:
        """Name -> pages and anchors; methods and properties with their class before them."""
        found: dict[str, set[tuple[str, str]]] = {}
        for full, entry in self.env.domains.python_domain.objects.items():
            if entry.objtype in KINDS:
                short = full.split(".")[-2 if entry.objtype in {"method", "property"} else -1 :]
                for name in (".".join(short), full.removeprefix("sound_qkeras.")):
                    found.setdefault(name, set()).add((entry.docname, entry.node_id))
        return found


def setup(app: Sphinx) -> dict[str, bool]:
    """Add it."""
    app.add_post_transform(LinkNames)
    return {"parallel_read_safe": True}

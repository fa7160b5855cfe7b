"""How a challenge scores a mask, as data: classes, tolerances, and what makes a score 0."""

from typing import Annotated, Literal

from msgspec import Meta, Struct

Connectivity = Literal[6, 18, 26]


class ScoredClass(Struct, frozen=True, forbid_unknown_fields=True):
    """One label and how it is scored.

    tolerance_mm: of NSD. labelled_slices_only: only the reference's slices count, from its lowest
    up to, but without, its highest (as the FLARE 2023 organisers' slice `z_lower:z_upper` has it).
    """

    label: Annotated[int, Meta(ge=1, le=127)]
    name: str
    tolerance_mm: Annotated[float, Meta(gt=0)]
    labelled_slices_only: bool = False


class ScoringRules(Struct, frozen=True, forbid_unknown_fields=True):
    """One challenge's rules; raises ValueError for what cannot be.

    dtype: what masks are cast to first: floats are truncated, integers wrap around, so that 256
    is background. lesion_label: the class whose scores are a case's DSC and NSD.
    higher_labels_void: a prediction with a label above all classes scores 0 in every class;
    elsewhere labels without a class are ignored. min_dsc_for_nsd: NSD is 0 where DSC is below.
    decimals: of both. connectivity: of the voxels of one lesion, by faces (6), edges (18) or
    corners.
    """

    dtype: Literal["uint8", "int8"]
    lesion_label: int
    higher_labels_void: bool
    min_dsc_for_nsd: Annotated[float, Meta(ge=0, le=1)]
    decimals: Annotated[int, Meta(ge=0, le=15)]
    classes: tuple[ScoredClass, ...]
    connectivity: Connectivity = 26

    def __post_init__(self) -> None:
        labels, names = (
            [getattr(one, field) for one in self.classes] for field in ("label", "name")
        )
        if len(set(labels)) < len(labels) or len(set(names)) < len(names):
            raise ValueError("classes: each needs a label and a name of its own")
        if self.lesion_label not in labels:
            raise ValueError(f"lesion_label is {self.lesion_label}, which no class has")

    @property
    def label_values(self) -> frozenset[int]:
        """Every value that a mask may hold, 0 for background among them."""
        return frozenset({0, *(scored.label for scored in self.classes)})

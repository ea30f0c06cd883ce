"""What a part says of parts that do not suit it."""

from flowexp.requirements import NetworkFacts, Parts, all_of


def refusal_of(part, **others):
    """The first unmet need as one text, or None; parts that are not given are unknown."""
    unmet = next(all_of(part.needs(Parts(**others))), None)
    return None if unmet is None else f"{unmet.key}: {unmet.problem} {unmet.remedy}"


def network_with(augment_dim):
    return NetworkFacts(
        label_dim=0,
        augment_dim=augment_dim,
        takes_tokens=False,
        in_channels=1,
        out_channels=1,
        img_resolution=None,
    )

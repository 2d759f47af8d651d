"""Power and heat as policies see them: models learnt from telemetry, where to place, route and slow down."""

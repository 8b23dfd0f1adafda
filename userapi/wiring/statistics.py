"""The statistics about users and their activity."""

from dataclasses import dataclass

from userapi.factors.figures import MfaFigures
from userapi.statistics import Statistics
from userapi.wiring.directory import DirectoryServices
from userapi.wiring.foundation import Foundation
from userapi.wiring.sessions import SessionServices


@dataclass(frozen=True, kw_only=True)
class StatisticsServices:
    """The services that count."""

    mfa_figures: MfaFigures
    statistics: Statistics


def build_statistics(
    foundation: Foundation, sessions: SessionServices, directory: DirectoryServices
) -> StatisticsServices:
    """Build the services that count."""
    figures = MfaFigures(directory.mfa_enforcement)
    return StatisticsServices(
        mfa_figures=figures,
        statistics=Statistics(clock=foundation.clock, sessions=sessions.sessions, mfa=figures),
    )

"""The report: one HTML file that holds the whole run and needs no network."""

from musegnn.analysis.report.data import ReportData
from musegnn.analysis.report.page import write_report

__all__ = ["ReportData", "write_report"]

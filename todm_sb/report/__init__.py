"""Results as text and pages."""

from todm_sb.report.table import markdown_table, results_table, scored_text, table_of

__all__ = ["markdown_table", "results_table", "scored_text", "table_of"]

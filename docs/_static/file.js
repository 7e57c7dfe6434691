// A page that was opened from a file may not read others: the search then shows results without a summary.
if (location.protocol === "file:") DOCUMENTATION_OPTIONS.SHOW_SEARCH_SUMMARY = false;

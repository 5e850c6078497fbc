"""The report as one page that opens from disk, with its figures and tables as files beside it.

What is said of runs (`known.py`) becomes sections of sentences, tables and pictures (`sections/`); a picture is drawn
by the page's plotting library (`interactive.py`) and for papers (`paper.py`), and has its data as a table.
"""

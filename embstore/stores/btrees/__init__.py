"""Reading many rows of an SQLite file off its pages, under SQLite's lock and by its descriptor.

What SQLite and Python do for each row takes longer than copying a vector. Here pages are read as they are, and all of
their rows taken apart together. While a transaction of SQLite's reads, nobody writes to the file, as there is no
write-ahead log; and whoever reads rows checks each by its checksum, as ever. Wherever anything is not as it is in a
file of ours that is sound, there is nothing to be read here, and the rows are asked of SQLite.

Section numbers are those of https://sqlite.org/fileformat2.html.
"""

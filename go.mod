module cloister

go 1.26

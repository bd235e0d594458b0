"""What is wrong with this machine: every ability that Corten needs or can use, found by trying.

abilities  what an ability is, and the report over all of them
trials     the process of its own in which things are tried, each in a child that ends with what it made
kernel     system calls, namespaces, file systems, filters
groups     control groups: layout, controllers, limits that are read back
ids        user namespaces, what blocks them, ranges of ids
store      the file system below the home directory
programs   nft, pasta, criu
gpus       devices and their CDI files
remedies   the one command that mends a thing here
"""

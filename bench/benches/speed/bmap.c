/* Looks blocks of a file up with libext2fs: bmap IMAGE INODE FIRST COUNT ROUNDS prints nanoseconds a lookup. */
#include <ext2fs/ext2fs.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

int main(int argc, char **argv)
{
    ext2_filsys fs;
    struct ext2_inode inode;
    struct timespec begin, end;
    if (argc != 6 || ext2fs_open(argv[1], 0, 0, 0, unix_io_manager, &fs))
        return 1;
    ext2_ino_t number = strtoul(argv[2], NULL, 10);
    blk64_t first = strtoull(argv[3], NULL, 10), count = strtoull(argv[4], NULL, 10);
    unsigned long rounds = strtoul(argv[5], NULL, 10), done = 0;
    char *buffer = malloc(3 * fs->blocksize);
    if (!buffer || ext2fs_read_inode(fs, number, &inode))
        return 1;
    clock_gettime(CLOCK_MONOTONIC, &begin);
    for (unsigned long round = 0; round < rounds; round++)
        for (blk64_t nr = 0; nr < count; nr++, done++) {
            blk64_t block;
            if (ext2fs_bmap2(fs, number, &inode, buffer, 0, first + nr, NULL, &block))
                return 1;
        }
    clock_gettime(CLOCK_MONOTONIC, &end);
    printf("%f\n", ((end.tv_sec - begin.tv_sec) * 1e9 + (end.tv_nsec - begin.tv_nsec)) / done);
    ext2fs_close(fs);
    return 0;
}

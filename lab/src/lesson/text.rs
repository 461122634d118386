//! What the lessons say.

use super::Lesson;

/// The six points of the mail, and one more.
pub(crate) const LESSONS: [Lesson; 7] = [
    Lesson {
        number: 1,
        title: "DAX is not direct I/O",
        quote: "In your mail above you say \"It also gets rid of the other warts of the DAX path due to pretending to be \
                like direct I/O\". I assume by this you mean the code in dax_do_io() around DIO_LOCKING, \
                inode_dio_begin(), etc?",
        before: "In Linux 4.8 a read of a DAX file went through dax_do_io, which behaved as direct I/O does: with \
                 DIO_LOCKING each read locked the inode for itself alone, and each operation was counted in, so that \
                 truncation could wait for the count. DAX mixes nothing with the page cache, so none of it was needed.",
        question: "A file is written once and then read three times. How often does this library's read lock the inode \
                   for itself alone?",
        choices: &["0 times", "1 time", "3 times", "6 times"],
        after: "Readers share the inode's lock. Whoever truncates takes it exclusively, and so waits for them: no count is \
                needed beside it. Compare the exclusive locks and the dio counts of the three machines.",
        mutant: "the old path, dax_do_io with DIO_LOCKING",
        mutant_after: "Each of the three reads now has the inode for itself and is counted as direct I/O. Two readers of one \
                       file wait for each other, for nothing.",
        script: "create f\nwrite f 0 8192 1\nread f 0 4096\nread f 4096 4096\nread f 0 8192\n",
    },
    Lesson {
        number: 2,
        title: "One place turns an offset into a page",
        quote: "Just a nit, I noticed that you used \"~(PAGE_SIZE - 1)\" in several places in iomap_dax_actor() and \
                iomap_dax_fault() instead of PAGE_MASK.",
        before: "A mapping says: the file's byte `offset` lies at the device's byte `addr`. The page of another byte `pos` \
                 is that of addr + (pos - offset). Who writes the mask by hand masks the difference first, and is right \
                 as long as offset and addr begin on a page.",
        question: "In how many of these six places does this library's helper find another page than the one the byte \
                   lies in?",
        choices: &["0 places", "2 places", "3 places", "6 places"],
        after: "There is one helper, device_page. It adds first and divides once, and it refuses a mapping for which there \
                is no right answer.",
        mutant: "the mask by hand: (addr + ((pos - offset) & ~(PAGE_SIZE - 1))) / PAGE_SIZE",
        mutant_after: "Where the mapping begins inside a page, the difference that is masked away was what led to the next \
                       page. The bytes come from the page before.",
        script: "",
    },
    Lesson {
        number: 3,
        title: "The iterator knows nothing of DAX",
        quote: "It's kind of weird having iomap_dax_fault() in fs/dax.c but having iomap_dax_actor() and iomap_dax_rw() in \
                fs/iomap.c?",
        before: "The iterator asks the file system for one mapping after the other. What is then done with a mapping - \
                 copied, mapped by a fault, zeroed, listed - is somebody else's. So iomap.rs, map_kind.rs and iter.rs must \
                 name no module of DAX.",
        question: "A write, a fault and a read of one file: how many of the three files of the iterator name a module \
                   that is about DAX?",
        choices: &["0 files", "1 file", "2 files", "3 files"],
        after: "All three ask the same question, iomap_begin; only the flags say what for. Linux ended up there too: \
                fs/iomap/iter.c knows nothing of DAX, fs/dax.c has the rest.",
        mutant: "iter.rs handles the fault itself: use crate::fault::FaultResult;",
        mutant_after: "One line, and nobody can use the iterator without DAX any more. The flight is the same: this mutant is \
                       one of structure, which no test of behaviour finds. So a test reads the sources.",
        script: "create f\nwrite f 0 4096 1\nmap m f 0 4096 shared rw\nload m 0\nread f 0 4096\nfiemap f\n",
    },
    Lesson {
        number: 4,
        title: "What is not mapped is an error",
        quote: "WARN_ON_ONCE(iomap->type != IOMAP_MAPPED); If we hit this we should bail with -EIO, yea? Otherwise we could \
                write to unmapped space or something horrible.",
        before: "ext2 answers a write with blocks, always. This toy file system does not: it says that the block is \
                 unwritten, and gives an address all the same. In that block somebody else keeps the byte 0x55.",
        question: "A program writes 16 bytes there. What does the write give?",
        choices: &["errno=5", "n=16", "n=0", "signal=SIGBUS"],
        after: "EIO, and the byte is still 0x55. By a fault it is SIGBUS: a page cannot be half mapped.",
        mutant: "it warns, and goes on",
        mutant_after: "The write says that all is well, and the byte is another. Something horrible.",
        script: "",
    },
    Lesson {
        number: 5,
        title: "The first page past the end",
        quote: "Take for example an I/O to the second page of a file, where the file has size one page. […] So, I think the \
                test should just be: if (pos >= i_size_read(inode))",
        before: "A fault past the end of the file has to be a bus error. The old check compared pages and rounded the size \
                 up. The new one compared bytes, and still added PAGE_SIZE - 1. The mail's own sum is off by two (4096 + \
                 4096 - 1 is 8191, not 8193); its conclusion stands.",
        question: "The file has one page. What does a load from its second page give?",
        choices: &["signal=SIGBUS", "byte=00", "byte=55", "errno=14"],
        after: "Byte 4096 is not below the size, 4096: a bus error. No entry is made, so nothing has to be taken away when \
                the file grows.",
        mutant: "if (pos >= i_size_read(inode) + PAGE_SIZE - 1)",
        mutant_after: "4096 is below 8191. The fault maps a page past the end: the program reads zeros from a place that the \
                       file does not have, and a store there would be lost.",
        script: "",
    },
    Lesson {
        number: 6,
        title: "The size of a hole",
        quote: "the current PMD logic requires us to know the size of the hole. This is important so that we can fault in a \
                huge zero page if we have a 2 MiB hole.",
        before: "A program loads one byte of each page of a hole of 2 MiB. The handler asks the file system what is there. If \
                 it hears that all 2 MiB are hole, it can map the huge zero page, once and for all.",
        question: "How many faults does this library take for the 512 pages?",
        choices: &["1 fault", "2 faults", "512 faults", "513 faults"],
        after: "One fault, one question, one entry. Linux 4.8 hears of one block each time and takes 512; Linux 6.1 has no \
                faults of 2 MiB on ext2 at all.",
        mutant: "iomap_begin answers one block of hole, whatever was asked",
        mutant_after: "The 2 MiB fault is tried, hears \"4 KiB\", and falls back (F8, too short). From then on a 4 KiB entry is \
                       in the unit, so 2 MiB are not even asked for: 512 faults of 4 KiB.",
        script: "create f\ntruncate f 0x200000\nmap m f 0 0x200000 shared ro\ntouch m 0 0x200000\n",
    },
    Lesson {
        number: 7,
        title: "Why ext2 lost its 2 MiB pages",
        quote: "",
        before: "Linux removed ext2's 2 MiB faults in 4.10: a unit can be mapped whole only if its blocks are one run that \
                 begins at a multiple of 2 MiB, and ext2's allocator never looked for one. Here a file of 4 MiB is written in \
                 calls of 1 MiB and then loaded, one byte a page.",
        question: "How many translations does this library need for the 1024 pages?",
        choices: &["2 translations", "513 translations", "1024 translations", "1026 translations"],
        after: "Two: the allocator gave each unit of the file one aligned run, so each is mapped by one PMD. On the Linux \
                machines the blocks begin wherever the last file ended.",
        mutant: "blocks are placed as Linux places them",
        mutant_after: "The same iomap, the same faults, holes told in full - and the fault falls back (F11, unaligned): the \
                       blocks are in a row, but do not begin at a multiple of 2 MiB. Both halves were needed.",
        script: "create f\nwrite f 0 0x100000 1\nwrite f 0x100000 0x100000 1\nwrite f 0x200000 0x100000 1\n\
                 write f 0x300000 0x100000 1\nmap m f 0 0x400000 shared ro\ntouch m 0 0x400000\n",
    },
];

/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Demand paging: address spaces whose areas get their memory, frame by frame,
 * when it is touched.
 */
#ifndef GUEST_VM_H
#define GUEST_VM_H

#include "guest.h"

#define VM_LARGE_SHIFT 21u /* of a large frame, as of what one leaf table covers */
#define VM_LARGE_SIZE  ((uint64_t)1 << VM_LARGE_SHIFT)
#define VM_LARGE_ORDER (VM_LARGE_SHIFT - EBB_FRAME_SHIFT)

/* An area is the one of its slot: of user memory there is a part of this size for each. */
#define VM_AREA_SHIFT 33u
#define VM_AREA_LIMIT ((uint64_t)1 << VM_AREA_SHIFT)
#define VM_AREAS      (1u << (ARCH_USER_SHIFT - VM_AREA_SHIFT))

/* A file, all of it in the page cache: frames stamped with vm_file_stamp() at both ends. */
#define VM_FILE_LEAF   512u
#define VM_FILE_LEAVES 64u
#define VM_FILE_LIMIT  (VM_FILE_LEAF * VM_FILE_LEAVES) /* frames */
struct vm_file {
    uint64_t frames;
    uint64_t *leaves[VM_FILE_LEAVES]; /* a frame each: addresses of frames of the file */
};

struct vm_area {
    uint32_t claimed; /* atomic */
    bool large;
    const struct vm_file *file; /* NULL: zeroes */
    uint64_t length;            /* atomic; bytes, 0: nothing is here */
};

/* One frame, for as long as it is used. */
struct vm_space {
    uint64_t *root, *top;
    uint64_t cpus; /* atomic: bit per CPU that has it loaded */
    int error;     /* atomic: the first page fault that found no frame */
    struct vm_area areas[VM_AREAS];
};
_Static_assert(sizeof(struct vm_space) <= EBB_FRAME_SIZE, "a space fits into a frame");

/* NULL: no memory. */
struct vm_space *vm_create(void);
/* No CPU has it loaded any more. Unmaps what is left. */
void vm_destroy(struct vm_space *space);

/* This CPU's user memory is this one from now on / none any more. */
void vm_enter(struct vm_space *space);
void vm_leave(void);

/*
 * Map an area of zeroes, or a private one of a file: whoever touches one of its pages gets a copy.
 * `large`: in frames of 2 MiB where there are any; not of a file. Any length up to VM_AREA_LIMIT.
 * -EBB_ENOSPC: too many areas. -EBB_ENOMEM, -EBB_EAGAIN: no frame for its tables.
 */
EBB_MUST_CHECK int vm_map(struct vm_space *space, uint64_t length, bool large,
                          const struct vm_file *file, uint8_t **start);
/* Forget the area that starts there, on all CPUs, and free its frames. Interrupts on. */
void vm_unmap(struct vm_space *space, uint8_t *start);

/*
 * A fault that finds no frame gets a page that is shared by all of them, so that whoever touched it
 * can go on; this says so, of this CPU's user memory. 0: there was none.
 */
int vm_error(void);

/* The frame behind an address of this CPU's user memory; 0: none. */
ebb_pfn_t vm_pfn(const void *address);

/* Page faults taken by all CPUs. */
uint64_t vm_faults(void);

/* A file of 1 to VM_FILE_LIMIT frames. On an error there is none. */
EBB_MUST_CHECK int vm_file_make(struct vm_file *file, uint64_t frames);
/* Check both stamps of all its frames, for this CPU. */
void vm_file_check(const struct vm_file *file, unsigned cpu);
void vm_file_free(struct vm_file *file);
static inline uint64_t vm_file_stamp(uint64_t page)
{
    return 0xf11e000000000000u | page;
}

#endif

/* Copyright (c) 2026 the aikit.fleet authors
 * GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
 * SPDX-License-Identifier: GPL-3.0-or-later
 *
 * Preloaded: a model is mapped without being read ahead. Its tensors are holes, and nobody looks at them. Nor does anybody look at a
 * cache in host memory, which is new and zero already: clearing it would only take that memory from the machine.
 */
#define _GNU_SOURCE
#include <stddef.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <unistd.h>

void *mmap(void *at, size_t size, int access, int flags, int file, off_t offset) {
    return (void *)syscall(SYS_mmap, at, size, access, (flags & ~MAP_POPULATE) | MAP_NORESERVE, file, offset);
}
void *mmap64(void *at, size_t size, int access, int flags, int file, off_t offset) { return mmap(at, size, access, flags, file, offset); }
int posix_madvise(void *at, size_t size, int advice) { (void)at; (void)size; (void)advice; return 0; }
int madvise(void *at, size_t size, int advice) { (void)at; (void)size; (void)advice; return 0; }
int posix_fadvise(int file, off_t offset, off_t size, int advice) { (void)file; (void)offset; (void)size; (void)advice; return 0; }
int posix_fadvise64(int file, off_t offset, off_t size, int advice) { (void)file; (void)offset; (void)size; (void)advice; return 0; }

enum { LARGE = 64 << 20 };

void *aligned_alloc(size_t alignment, size_t size);

/* Nor has the machine to have that memory */
int posix_memalign(void **where, size_t alignment, size_t size) {
    *where = size < LARGE ? aligned_alloc(alignment, size) : mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    return *where == NULL || *where == MAP_FAILED ? 12 : 0;
}

void *memset(void *at, int value, size_t size) {
    void *end = at;
    if (size < LARGE) __asm__ volatile("rep stosb" : "+D"(end), "+c"(size) : "a"(value) : "memory");
    return at;
}

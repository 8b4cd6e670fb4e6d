/* Preloaded into a counted server: counts what it asks of the C library's allocator, and what it has it copy.

   Counted while `is_counting` is set: each call of malloc, calloc, realloc and of the aligned ones, with the size asked
   for; each call of memcpy, memmove and mempcpy, with its size. Under PYTHONMALLOC=malloc these are all of Python's
   objects, and SQLite's, OpenSSL's and Rust's memory. Not counted: objects that Python takes from its free lists, copies
   so small that the compiler made them single instructions, what realloc copies when it moves, and what the kernel
   copies (the sizes of reads and writes are counted from their system calls). */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stddef.h>

unsigned long long allocation_count, allocated_size, copied_size;
int is_counting;

/* glibc's own names, so that the first allocations of a process need no look-up that would allocate. */
extern void *__libc_malloc(size_t);
extern void *__libc_calloc(size_t, size_t);
extern void *__libc_realloc(void *, size_t);
extern void *__libc_memalign(size_t, size_t);

static void *(*real_memcpy)(void *, const void *, size_t);
static void *(*real_memmove)(void *, const void *, size_t);

__attribute__((constructor)) static void find_real(void)
{
    real_memcpy = dlsym(RTLD_NEXT, "memcpy");
    real_memmove = dlsym(RTLD_NEXT, "memmove");
}

static void count_allocation(size_t size)
{
    if (is_counting) {
        allocation_count += 1;
        allocated_size += size;
    }
}

void *malloc(size_t size)
{
    count_allocation(size);
    return __libc_malloc(size);
}

void *calloc(size_t count, size_t size)
{
    count_allocation(count * size);
    return __libc_calloc(count, size);
}

void *realloc(void *old, size_t size)
{
    count_allocation(size);
    return __libc_realloc(old, size);
}

void *memalign(size_t alignment, size_t size)
{
    count_allocation(size);
    return __libc_memalign(alignment, size);
}

void *aligned_alloc(size_t alignment, size_t size)
{
    return memalign(alignment, size);
}

int posix_memalign(void **result, size_t alignment, size_t size)
{
    void *found = memalign(alignment, size);
    if (found == NULL)
        return ENOMEM;
    *result = found;
    return 0;
}

void *memcpy(void *to, const void *from, size_t size)
{
    if (is_counting)
        copied_size += size;
    if (real_memcpy != NULL)
        return real_memcpy(to, from, size);
    for (size_t i = 0; i < size; i++) /* before the constructor has run */
        ((char *)to)[i] = ((const char *)from)[i];
    return to;
}

void *memmove(void *to, const void *from, size_t size)
{
    if (is_counting)
        copied_size += size;
    if (real_memmove != NULL)
        return real_memmove(to, from, size);
    if ((char *)to < (const char *)from)
        for (size_t i = 0; i < size; i++)
            ((char *)to)[i] = ((const char *)from)[i];
    else
        for (size_t i = size; i > 0; i--)
            ((char *)to)[i - 1] = ((const char *)from)[i - 1];
    return to;
}

void *mempcpy(void *to, const void *from, size_t size)
{
    return (char *)memcpy(to, from, size) + size;
}

/* The same, as a compiler calls them that checks sizes. */
void *__memcpy_chk(void *to, const void *from, size_t size, size_t room)
{
    (void)room;
    return memcpy(to, from, size);
}

void *__memmove_chk(void *to, const void *from, size_t size, size_t room)
{
    (void)room;
    return memmove(to, from, size);
}

void *__mempcpy_chk(void *to, const void *from, size_t size, size_t room)
{
    (void)room;
    return mempcpy(to, from, size);
}

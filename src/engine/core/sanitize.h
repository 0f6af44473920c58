/* Is the address sanitizer there, and its calls when it is. */
#ifndef ENGINE_CORE_SANITIZE_H
#define ENGINE_CORE_SANITIZE_H

#if defined(__SANITIZE_ADDRESS__)
#define SANITIZE_ADDRESS 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define SANITIZE_ADDRESS 1
#endif
#endif
#ifndef SANITIZE_ADDRESS
#define SANITIZE_ADDRESS 0
#endif

#if SANITIZE_ADDRESS
#include <sanitizer/asan_interface.h>
#define sanitize_hide(memory, bytes) ASAN_POISON_MEMORY_REGION(memory, bytes)
#define sanitize_show(memory, bytes) ASAN_UNPOISON_MEMORY_REGION(memory, bytes)
#else
#define sanitize_hide(memory, bytes) ((void)(memory), (void)(bytes))
#define sanitize_show(memory, bytes) ((void)(memory), (void)(bytes))
#endif

#endif

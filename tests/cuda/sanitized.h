/* WITH_ASAN, SANITIZED: whether AddressSanitizer is in this build, of gcc or clang. */
#ifndef WEFT_TESTS_CUDA_SANITIZED_H
#define WEFT_TESTS_CUDA_SANITIZED_H

#if defined(__has_feature)
#if __has_feature(address_sanitizer)
#define WITH_ASAN
#endif
#endif
#if defined(__SANITIZE_ADDRESS__) && !defined(WITH_ASAN)
#define WITH_ASAN
#endif

#ifdef WITH_ASAN
enum { SANITIZED = 1 };
#else
enum { SANITIZED = 0 };
#endif

#endif

/* Hashes that name blobs: SHA-256 of large files, git's SHA-1 of small ones. */
#include "hub/cache.h"

#include <openssl/evp.h>
#include <stdlib.h>
#include <string.h>

struct HubDigest {
    EVP_MD_CTX *context;
};

static bool is_hex(const char *text, size_t length) {
    return strlen(text) == length && strspn(text, "0123456789abcdef") == length;
}

HubDigest *hub_digest_new(const char *etag, uint64_t size) {
    bool sha256 = is_hex(etag, 64), git = is_hex(etag, 40);
    if (!sha256 && !git) return NULL;
    HubDigest *digest = base_calloc(1, sizeof *digest);
    digest->context = EVP_MD_CTX_new();
    if (!digest->context ||
        EVP_DigestInit_ex(digest->context, sha256 ? EVP_sha256() : EVP_sha1(), NULL) != 1) {
        hub_digest_free(digest);
        return NULL;
    }
    if (git) {
        char header[40];
        int length = snprintf(header, sizeof header, "blob %llu", (unsigned long long)size);
        hub_digest_add(digest, header, (size_t)length + 1);
    }
    return digest;
}

void hub_digest_add(HubDigest *digest, const void *bytes, size_t length) {
    EVP_DigestUpdate(digest->context, bytes, length);
}

bool hub_digest_end(HubDigest *digest, const char *etag) {
    unsigned char hash[EVP_MAX_MD_SIZE];
    unsigned int length = 0;
    char text[2 * EVP_MAX_MD_SIZE + 1] = "";
    EVP_DigestFinal_ex(digest->context, hash, &length);
    for (unsigned int i = 0; i < length; i++) snprintf(text + 2 * i, 3, "%02x", hash[i]);
    hub_digest_free(digest);
    return strcmp(text, etag) == 0;
}

void hub_digest_free(HubDigest *digest) {
    if (!digest) return;
    EVP_MD_CTX_free(digest->context);
    free(digest);
}

/* Names in archives are UTF-8, whatever the process's locale: libarchive converts by
 * that of the calling thread. */
#include "base/base.h"

BaseLocale base_utf8_begin(void) {
    BaseLocale locale = {.mine = newlocale(LC_CTYPE_MASK, "C.UTF-8", (locale_t)0)};
    if (!locale.mine) locale.mine = newlocale(LC_CTYPE_MASK, "en_US.UTF-8", (locale_t)0);
    if (locale.mine) locale.before = uselocale(locale.mine);
    return locale;
}

void base_utf8_end(BaseLocale locale) {
    if (!locale.mine) return;
    uselocale(locale.before);
    freelocale(locale.mine);
}

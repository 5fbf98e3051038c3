    snprintf(dst, size, "%s", label);
}
#line 1 "/usr/include/string.h"
__attribute__((constructor)) static void early(void) { }

#include "driver.h"

struct stack {
    int items[8];
    int count;
};

bool stack_push(struct stack *stack, int value);

int main(int argc, char **argv)
{
    struct stack *stack = exact(sizeof *stack);
    int pushes = atoi(argv[1]), accepted = 0;
    stack->count = 0;
    for (int i = 0; i < pushes; i++)
        accepted += stack_push(stack, 10 + i);
    printf("%d %d %d\n", accepted, stack->count, stack->items[stack->count - 1]);
    return 0;
}
